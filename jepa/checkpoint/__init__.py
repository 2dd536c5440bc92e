"""Checkpoints: a file, or a folder of shards; released files of others; the lock on a run directory."""

from jepa.checkpoint.file import Checkpoint, CheckpointError, latest

__all__ = ["Checkpoint", "CheckpointError", "latest"]
