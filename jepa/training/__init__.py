"""The machinery around the training loop: config, checks, run directory, checkpoints, logs, sharding."""
