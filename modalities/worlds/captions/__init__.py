"""Captions of the embedded world."""
