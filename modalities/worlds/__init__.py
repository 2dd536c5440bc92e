"""Embedded data sets: procedural worlds that are rendered once and cached."""
