"""One way to open any source of a trained encoder: its config, its modality and its networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from jepa.checkpoint import Checkpoint
from jepa.config import Tree
from jepa.encoder import TokenEncoder
from jepa.matching import MatchedModality
from jepa.modality import Modality
from jepa.training.config import Config
from jepa.weights.load import Which, configured, encoder_of, model_of, read_checkpoint
from jepa.weights.trust import importing


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source of a trained encoder. checkpoint: all its networks; None for encoders of other families."""

    source: str
    config: Config[Any, Any]
    modality: Modality[Any]
    checkpoint: Checkpoint | None

    def encoder(self, which: Which = "target_encoder") -> nn.Module:
        """The encoder in evaluation mode: inputs -> [B, N, D]; of two matching streams, their `inference_model`."""
        if not isinstance(self.modality, MatchedModality):
            return self.token_encoder(which)
        assert self.checkpoint is not None
        with importing(self.source, self.checkpoint.config, trust=True):  # as `open_source` was
            return self.modality.inference_model(model_of(self.checkpoint, self.config, self.modality), which)

    def token_encoder(self, which: Which = "target_encoder") -> TokenEncoder:
        """The encoder itself, also of two matching streams."""
        assert self.checkpoint is not None
        with importing(self.source, self.checkpoint.config, trust=True):
            return encoder_of(self.checkpoint, self.config, self.modality, which)


def open_source(
    source: Path | str, overrides: Sequence[Tree | str] = (), *, step: int | None = None, trust: bool = False
) -> Opened:
    """Open a run directory, checkpoint file or weights of another project.

    overrides: changes of the config, such as `data.image_size=448`. step, trust: as in `jepa.load`. Raises
    CheckpointError, and ConfigError for overrides that do not fit.
    """
    checkpoint = read_checkpoint(source, mmap=True, step=step)
    with importing(source, checkpoint.config, trust):
        config, modality = configured(checkpoint, overrides)
        return Opened(source=str(source), config=config, modality=modality, checkpoint=checkpoint)


def load(
    run: Path | str,
    which: Which = "target_encoder",
    device: str = "cpu",
    *,
    step: int | None = None,
    trust: bool = False,
) -> nn.Module:
    """Encoder of a run directory, checkpoint file or other source, in evaluation mode: inputs -> [B, N, D].

    step: of a run directory, load the checkpoint that was kept of this step (keep_every) instead of the latest.
    trust: whether to import code that the checkpoint names, beyond installed modalities.
    `load_modality(run).evaluation_view(image)` makes the inputs. A modality with two matching streams returns the
    `MatchedModality.inference_model` instead. Raises CheckpointError if there is no checkpoint, or without trust.
    """
    return open_source(run, step=step, trust=trust).encoder(which).to(device)


def load_modality(run: Path | str, *, trust: bool = False) -> Modality[Any]:
    """The modality of a source, as configured there; trust as in `load`."""
    return open_source(run, trust=trust).modality
