"""Images whose views take their time, so that a run is interrupted early without burning the processor meanwhile."""

import time
from typing import Any

from torch import Generator, Tensor

from modalities.image import Image

SECONDS = 0.006  # that a view takes


class SlowImages(Image):
    def training_view(self, inputs: Any, generator: Generator) -> Tensor:
        time.sleep(SECONDS)
        return super().training_view(inputs, generator)
