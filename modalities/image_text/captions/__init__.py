"""Captioned images: where they come from and what becomes of a caption."""
