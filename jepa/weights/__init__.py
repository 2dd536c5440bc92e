"""Trained networks: loading and exporting them."""
