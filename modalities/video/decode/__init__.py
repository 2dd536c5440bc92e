"""Video decoders with one interface."""
