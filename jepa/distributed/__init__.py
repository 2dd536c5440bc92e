"""Rank, device, collectives and stop signals; a single process needs no process group."""

from jepa.distributed.collectives import (
    gather_rows,
    gradients_shared,
    is_sharded,
    local,
    local_shards,
    mean_over_processes,
    own_rows,
    whole,
)
from jepa.distributed.signals import STOP_SIGNALS, StopRequest, stop_on_signals
from jepa.distributed.world import Exchange, PeerError, World, gpu_index, join
