"""Batches as a function of (seed, step, rank): nothing is counted, so nothing has to be restored."""

from jepa.data.bad_files import BadFiles, DataError
from jepa.data.batches import Batch, TrainingBatches, open_split, to_device, training_batches
from jepa.data.cache import SampleCache
from jepa.data.order import Order, permutation, seeded

__all__ = [
    "BadFiles",
    "Batch",
    "DataError",
    "Order",
    "SampleCache",
    "TrainingBatches",
    "open_split",
    "permutation",
    "seeded",
    "to_device",
    "training_batches",
]
