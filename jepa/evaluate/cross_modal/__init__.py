"""Evaluation of two matching streams: retrieval, classes by name, and how much one helps predict the other."""
