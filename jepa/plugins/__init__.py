"""Modalities by name: entry points of installed packages, the template of a new one, and the commands about them."""
