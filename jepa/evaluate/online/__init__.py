"""The probe during training, which shows whether a run learns and which checkpoint is the best."""

from typing import TYPE_CHECKING, Any

from torch import nn

from jepa.distributed import World
from jepa.modality import Modality
from jepa.training.config import Config
from jepa.training.log import Stopwatch

if TYPE_CHECKING:
    from jepa.evaluate.online.probe import OnlineProbe


class NoProbe:
    """The probe of a run that has none."""

    def scores(self, done: int, clock: Stopwatch) -> dict[str, float]:
        """Nothing."""
        return {}

    def is_best(self, done: int) -> bool:
        """No."""
        return False


def online_probe(
    config: Config[Any, Any], modality: Modality[Any], model: nn.Module, world: World, first_step: int
) -> "OnlineProbe | NoProbe":
    """The probe of a run that starts or resumes at a step."""
    if not config.probe.every:
        return NoProbe()
    from jepa.evaluate.online.probe import OnlineProbe  # with evaluation, which most runs need only at their end

    return OnlineProbe(config, modality, model, world, first_step)
