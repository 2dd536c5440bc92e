"""Sound for openjepa: log-mel spectrograms of wav files or of generated instruments."""
