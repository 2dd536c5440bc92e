"""The modality template-name."""
