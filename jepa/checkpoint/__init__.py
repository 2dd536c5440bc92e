"""Checkpoint files and folders of shards, released files of other projects, and the lock on a run directory."""

from jepa.checkpoint.file import Checkpoint, CheckpointError, latest
