"""Encoders of other families (MAE, DINO, CLIP, ...) through timm and open_clip: to be compared, not trained here."""
