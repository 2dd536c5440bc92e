"""The embedded world of still scenes."""
