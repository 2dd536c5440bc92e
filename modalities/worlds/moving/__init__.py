"""The embedded world that moves."""
