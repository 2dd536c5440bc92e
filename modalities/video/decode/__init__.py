"""Video decoders behind one interface."""
