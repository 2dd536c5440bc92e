"""`jepa embed` and `jepa.embed`: vectors of every sample of a data set, with its name and labels, in one file."""
