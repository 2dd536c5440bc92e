"""`jepa search`: the nearest neighbours of files and sentences among the vectors that `jepa embed` wrote."""
