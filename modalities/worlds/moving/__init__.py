"""The embedded world of clips."""
