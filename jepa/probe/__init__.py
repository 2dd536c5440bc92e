"""Probes as networks: they are trained in `jepa.evaluate`, stored in a file, and converted in `jepa.weights`."""
