"""Windows of multichannel sensors as a modality of openjepa."""
