"""Load and export trained networks."""
