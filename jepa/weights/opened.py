"""One way to open any source of a trained encoder: its config, its modality and its networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import nn

from jepa.checkpoint import Checkpoint
from jepa.checkpoint.file import Step
from jepa.config import ConfigError, Tree
from jepa.encoder import TokenEncoder
from jepa.matching import MatchedModality
from jepa.modality import Modality
from jepa.plugins.registry import declared_name
from jepa.probe.protocol import Which
from jepa.training.config import Config
from jepa.weights.families.encoder import Family
from jepa.weights.families.names import family_name
from jepa.weights.families.source import config_of, encoder_at, family_of
from jepa.weights.load import configured, encoder_of, model_of, read_checkpoint, scaled_positions, untrained_encoder
from jepa.weights.places import ijepa_of_timm
from jepa.weights.trust import importing, predicted_functions


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source of a trained encoder.

    config, modality: as changed by the overrides. trained: as they were in training. checkpoint: all its networks;
    None for encoders of other families, which have a `family` instead. trusted: whether any code that it names may be
    called.
    """

    source: str
    config: Config[Any, Any]
    modality: Modality[Any]
    trained: tuple[Config[Any, Any], Modality[Any]]
    checkpoint: Checkpoint | None
    family: Family | None = None
    trusted: bool = False

    @property
    def strange_targets(self) -> list[str]:
        """Custom functions that predictor and target encoder together would call, if the source is not trusted."""
        return [] if self.trusted or self.checkpoint is None else predicted_functions(self.checkpoint.config)

    def encoder(self, which: Which | None = None) -> nn.Module:
        """The encoder in evaluation mode: inputs -> [B, N, D]; of two matching streams, their `inference_model`.

        which: by default `Config.evaluated_encoder`.
        """
        if not isinstance(self.modality, MatchedModality):
            return self.token_encoder(which)
        assert self.checkpoint is not None
        with importing(self.source, self.checkpoint.config, trust=True):  # as `open_source` was
            model = model_of(self.checkpoint, self.config, self.modality)
            return self.modality.inference_model(model, which or self.config.evaluated_encoder)

    def token_encoder(self, which: Which | None = None) -> TokenEncoder:
        """The encoder itself, also of two matching streams."""
        if self.family is not None:
            return encoder_at(self.family, self.config, self.modality, trained=True)
        assert self.checkpoint is not None
        with importing(self.source, self.checkpoint.config, trust=True):
            return encoder_of(self.checkpoint, self.config, self.modality, which or self.config.evaluated_encoder)

    def untrained_encoder(self) -> TokenEncoder:
        """The same architecture with random weights, for the same inputs."""
        if self.family is not None:
            return encoder_at(self.family, self.config, self.modality, trained=False)
        assert self.checkpoint is not None
        config, modality = self.trained
        with importing(self.source, self.checkpoint.config, trust=True):
            encoder = untrained_encoder(config, modality)
        if not self.on_trained_grid:
            encoder.set_positions(scaled_positions(config, self.modality, modality))
        return encoder

    @property
    def has_predictor(self) -> bool:
        """Whether the source holds a predictor too."""
        return self.checkpoint is not None and any(name.startswith("predictor.") for name in self.checkpoint.model)

    @property
    def on_trained_grid(self) -> bool:
        """Whether inputs have the token grid of training."""
        return self.modality.grid == self.trained[1].grid


def open_source(
    source: Path | str | Family,
    overrides: Sequence[Tree | str] = (),
    *,
    modality: str | None = None,
    step: Step | None = None,
    trust: bool = False,
) -> Opened:
    """Open a run directory, checkpoint file, weights of another project, or an encoder of another family.

    source: a path or name; a `ModuleFamily` for a custom module. overrides: changes of the config, such as
    `data.image_size=448`. modality: of the inputs; an encoder of another family takes images by default, and frames of
    videos. step, trust: as in `jepa.load`. Raises CheckpointError, and ConfigError for overrides that do not fit.
    """
    family = source if isinstance(source, Family) else None
    if family is None and (name := family_name(str(source))) and not ijepa_of_timm(str(source)):
        family = family_of(name)
    if family is not None:
        given = Checkpoint(0, 0.0, dict(config_of(family, modality or "image")), {}, {})
    else:
        assert not isinstance(source, Family)
        given = read_checkpoint(source, mmap=True, step=step)
    found = given.config["modality"]
    if modality not in (None, found, declared_name(found)):
        raise ConfigError(f"{source} is an encoder of modality '{found}', not '{modality}'")
    with importing(str(source), given.config, trust):
        trained = configured(given)
        config, changed = configured(given, overrides) if overrides else trained
    checkpoint = None if family else given
    return Opened(
        source=str(source),
        config=config,
        modality=changed,
        trained=trained,
        checkpoint=checkpoint,
        family=family,
        trusted=trust,
    )


def load(
    run: Path | str, which: Which | None = None, device: str = "cpu", *, step: Step | None = None, trust: bool = False
) -> nn.Module:
    """Encoder of a run directory, checkpoint file or other source, in evaluation mode: inputs -> [B, N, D].

    which: by default the encoder that the run evaluates (`Config.evaluated_encoder`). step: of a run directory, the
    checkpoint that was kept of this step (keep_every) instead of the latest one; "best": that with the best score of
    the probe during training.
    trust: whether to import code that the checkpoint names, beyond installed modalities.
    `load_modality(run).evaluation_view(image)` makes the inputs. A modality with two matching streams returns the
    `MatchedModality.inference_model` instead. Raises CheckpointError if there is no checkpoint, or without trust.
    """
    if which not in (None, *get_args(Which)):
        raise ConfigError(f"which: '{which}' is no encoder; there are {' and '.join(get_args(Which))}")
    return open_source(run, step=step, trust=trust).encoder(which).to(device)


def load_modality(run: Path | str, *, trust: bool = False) -> Modality[Any]:
    """The modality of a source, as configured there; trust as in `load`."""
    return open_source(run, trust=trust).modality
