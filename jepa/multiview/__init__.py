"""Learning from several views of a sample without a teacher: their vectors, and the distance between these."""
