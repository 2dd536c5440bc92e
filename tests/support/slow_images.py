"""Images whose masks take their time, so that a run is interrupted early without burning the processor meanwhile."""

import time

from torch import Generator

from jepa.masking import Masks
from modalities.image import Image

SECONDS = 0.05  # that the masks of a batch take


class SlowImages(Image):
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        time.sleep(SECONDS)
        return super().sample_masks(batch_size, generator)
