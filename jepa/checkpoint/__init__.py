"""Checkpoint files and folders of shards, and the lock on a run directory."""

from jepa.checkpoint.file import Checkpoint, CheckpointError, latest
