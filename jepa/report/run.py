"""What a run directory holds, read for its report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa.checkpoint import Checkpoint
from jepa.collapse import CollapseSigns
from jepa.data import open_split
from jepa.encoder import TokenEncoder
from jepa.evaluate.forecast import Forecaster, build_forecaster, can_forecast
from jepa.modality import Modality, Samples
from jepa.model import JEPA
from jepa.training.config import Config
from jepa.training.log import read_metrics
from jepa.weights.load import configured, encoder_of, model_of, read_checkpoint, untrained_encoder

_SAMPLES = 500  # that are encoded for pictures
_CPU_FLOPS = 2e11  # what that may cost where there is no GPU; large encoders see fewer samples
_FEWEST = 32


@dataclass(frozen=True)
class Run:
    """A run: its networks, what it logged and, where it was evaluated, how good they are."""

    run_dir: Path
    checkpoint: Checkpoint
    config: Config[Any, Any]
    modality: Modality[Any]
    encoders: dict[str, TokenEncoder]  # trained, untrained
    metrics: list[dict[str, Any]]
    results: dict[str, Any]  # of results.json, empty where there is none

    @property
    def title(self) -> str:
        """The name of the modality and that of the directory."""
        return f"{self.config.modality}: {self.run_dir.resolve().name}"

    @property
    def parameters(self) -> int:
        """Of the encoder."""
        return sum(parameter.numel() for parameter in self.encoders["trained"].parameters())

    @property
    def sample_limit(self) -> int:
        """How many samples are encoded for pictures."""
        if self.encoders["trained"].device.type == "cuda":
            return _SAMPLES
        flops = 2 * self.parameters * len(self.modality.positions) * len(self.encoders)
        return max(_FEWEST, min(_SAMPLES, int(_CPU_FLOPS / flops)))

    def networks(self) -> JEPA:
        """All trained networks, where the encoders are."""
        return model_of(self.checkpoint, self.config, self.modality).to(self.encoders["trained"].device)

    def forecaster(self) -> Forecaster | None:
        """What predicts the later part of inputs; None where the run has none."""
        if not can_forecast(self.modality, self.config):
            return None
        return build_forecaster(self.networks(), self.modality, self.config)

    def collapse_warning(self) -> str:
        """What looks bad about the representation, in words, by the evaluation or else the last logged step."""
        names = ("target_std", "rankme", "cosine")
        logged = self.metrics[-1] if self.metrics else {}
        streams = [stream.name for stream in self.modality.streams] or [""]
        warnings = []
        for number, stream in enumerate(streams):
            keys = [f"{stream}_{name}" if number else name for name in names]
            for signs in (self.results.get("collapse", {}), logged):
                if all(key in signs for key in keys):
                    warnings.append(CollapseSigns(*(signs[key] for key in keys)).warning(stream))
                    break
        return ". ".join(filter(None, warnings))


def read_run(run_dir: Path) -> Run:
    """Load a run; raises CheckpointError where there is no checkpoint."""
    checkpoint = read_checkpoint(run_dir)
    config, modality = configured(checkpoint)
    trained = encoder_of(checkpoint, config, modality, config.evaluate.encoder)
    device = torch.device("cuda" if torch.cuda.is_available() and config.compute.device != "cpu" else "cpu")
    encoders = {"trained": trained.to(device), "untrained": untrained_encoder(config, modality).to(device)}
    path = run_dir / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    return Run(run_dir, checkpoint, config, modality, encoders, read_metrics(run_dir), results)


def shown_samples(modality: Modality[Any]) -> Samples:
    """The first of the validation, test and training split that has samples; raises DataError."""
    for split in ("validation", "test"):
        samples = open_split(modality, split)
        if len(samples) > 1:
            return samples
    return open_split(modality, "train")
