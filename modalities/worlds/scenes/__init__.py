"""The embedded world of images."""
