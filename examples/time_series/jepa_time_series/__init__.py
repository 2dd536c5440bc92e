"""Windows of multichannel sensor recordings as a modality of openjepa."""
