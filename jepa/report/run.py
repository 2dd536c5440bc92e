"""The content of a run directory, read for its report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa.checkpoint import Checkpoint
from jepa.collapse import FEW, CollapseSigns
from jepa.data import open_split
from jepa.data.index import index_of_run
from jepa.encoder import TokenEncoder
from jepa.evaluate.forecast import Forecaster, build_forecaster, can_forecast
from jepa.evaluate.request import run_of
from jepa.modality import Modality, Samples
from jepa.model import JEPA
from jepa.training.config import Config
from jepa.training.log import read_metrics
from jepa.weights.load import model_of
from jepa.weights.opened import Opened, open_source

_MAX_SAMPLES, _MIN_SAMPLES = 500, 32  # encoded for pictures
_CPU_FLOPS = 2e11  # spent on pictures without a GPU, so large encoders get fewer samples


@dataclass(frozen=True)
class Run:
    """A run or another source: its networks, its metrics, and its results if it was evaluated."""

    run_dir: Path
    opened: Opened
    encoders: dict[str, TokenEncoder]  # trained, untrained
    metrics: list[dict[str, Any]]
    results: dict[str, Any]  # results.json, empty if there is none

    @property
    def title(self) -> str:
        """Name of the modality and of the directory, or of the source."""
        return f"{self.config.modality}: {self.run_dir.resolve().name if self.is_run else self.opened.source}"

    @property
    def is_run(self) -> bool:
        """Whether this is a run, and not another source whose results lie in the folder."""
        return run_of(self.run_dir) is not None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """All trained networks; None for an encoder of another family."""
        return self.opened.checkpoint

    @property
    def config(self) -> Config[Any, Any]:
        """The config, as evaluated."""
        return self.opened.config

    @property
    def modality(self) -> Modality[Any]:
        """The modality, as evaluated."""
        return self.opened.modality

    @property
    def parameters(self) -> int:
        """Number of parameters of the encoder."""
        return sum(parameter.numel() for parameter in self.encoders["trained"].parameters())

    @property
    def sample_limit(self) -> int:
        """Number of samples to encode for pictures."""
        if self.encoders["trained"].device.type == "cuda":
            return _MAX_SAMPLES
        flops = 2 * self.parameters * len(self.modality.positions) * len(self.encoders)
        return max(_MIN_SAMPLES, min(_MAX_SAMPLES, int(_CPU_FLOPS / flops)))

    def networks(self) -> JEPA:
        """All trained networks, on the device of the encoders."""
        assert self.checkpoint is not None
        return model_of(self.checkpoint, self.config, self.modality).to(self.encoders["trained"].device)

    def forecaster(self) -> Forecaster | None:
        """The forecaster; None if the run cannot forecast, or names code that may not be called."""
        opened = self.opened
        if not opened.has_predictor or opened.strange_targets or not can_forecast(self.modality, self.config):
            return None
        return build_forecaster(self.networks(), self.modality, self.config)

    def collapse_warning(self) -> str:
        """Signs of collapse in words, from the evaluation or else the last logged step; empty if there are none."""
        names = ("target_std", "rankme", "cosine")
        logged, evaluated = self.metrics[-1] if self.metrics else {}, self.results.get("collapse", {})
        if evaluated.get("samples", FEW) < FEW:
            evaluated = {}  # RankMe of n samples is at most n - 1, which alone would look like a collapse
        streams = [stream.name for stream in self.modality.streams] or [""]
        warnings = []
        for number, stream in enumerate(streams):
            keys = [f"{stream}_{name}" if number else name for name in names]
            for signs, samples in ((evaluated, FEW), (logged, self.config.optim.batch_size)):
                if all(key in signs for key in keys):
                    found = CollapseSigns(*(signs[key] for key in keys))
                    warnings.append(found.warning(stream, samples, self.config.remedies))
                    break
        return ". ".join(filter(None, warnings))


def read_run(run_dir: Path, trust: bool = False) -> Run:
    """Load a run, or the source that `jepa evaluate` has measured there; trust as in `open_source`.

    Raises CheckpointError if there is neither.
    """
    path = run_dir / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    opened = _open(run_dir, results, trust)
    opened.modality.index_folder = index_of_run(run_dir)
    config = opened.config
    device = torch.device("cuda" if torch.cuda.is_available() and config.compute.device != "cpu" else "cpu")
    trained, untrained = opened.token_encoder(), opened.untrained_encoder()
    encoders = {"trained": trained.to(device), "untrained": untrained.to(device)}
    return Run(run_dir, opened, encoders, read_metrics(run_dir), results)


def _open(run_dir: Path, results: Mapping[str, Any], trust: bool) -> Opened:
    request = results.get("request")
    if run_of(run_dir) is not None:
        return open_source(run_dir, trust=True)  # a run imports what it imported in training
    if request is None:
        return open_source(run_dir, trust=trust)
    layers = [request["base"], *request["layers"]]
    return open_source(request["source"], layers, modality=request["modality"], step=request["step"], trust=trust)


def report_samples(modality: Modality[Any]) -> Samples:
    """The first of the validation, test and training split with samples; raises DataError."""
    for split in ("validation", "test"):
        samples = open_split(modality, split)
        if len(samples) > 1:
            return samples
    return open_split(modality, "train")
