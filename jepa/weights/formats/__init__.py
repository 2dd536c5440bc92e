"""Formats of weights, one module each: it recognises a file of its format, reads it and writes it."""
