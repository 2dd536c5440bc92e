"""Training batches as pure functions of (seed, step, rank), so that a resumed run has no state to restore."""

from jepa.data.bad_files import BadFiles, DataError, read_bad_files
from jepa.data.batches import Batch, TrainingBatches, open_split, to_device, training_batches
from jepa.data.cache import SampleCache
from jepa.data.order import Order, permutation, seeded
from jepa.data.prefetch import batch_bytes, batches_ahead
from jepa.data.summary import say_data
from jepa.data.upcoming import Upcoming
