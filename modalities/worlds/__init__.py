"""Embedded data sets: procedural worlds, rendered once and cached."""
