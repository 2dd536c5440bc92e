"""Sound for openjepa: log-mel spectrograms of wav files, or of instruments that it plays itself."""
