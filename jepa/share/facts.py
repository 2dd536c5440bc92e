"""What is known of trained networks: the content of a model card, read from a run directory or any other source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.collapse import FEW, CollapseSigns
from jepa.config import ConfigError
from jepa.data import DataError, open_split
from jepa.data.index import index_of_run
from jepa.data.summary import generated_line, split_line, splits_of, summary_of
from jepa.modality import Modality
from jepa.plugins.registry import UnknownModalityError
from jepa.share.privacy import cleaned_texts, removed_paths, without_paths, without_paths_in_text
from jepa.training.config import Config
from jepa.training.log import read_metrics
from jepa.weights.load import configured
from jepa.weights.trust import importing

_SIGNS = ("target_std", "rankme", "cosine")


@dataclass(frozen=True)
class Facts:
    """Trained networks and what is known of them, without paths of this machine.

    data: lines about the training data. results: content of results.json, empty if it was not evaluated. signs: signs
    of collapse, empty if unknown. warnings: sentences about them. figures: names of pictures to show.
    """

    name: str
    checkpoint: Checkpoint
    data: tuple[str, ...]
    generated: bool
    results: Mapping[str, Any] = field(default_factory=dict)
    signs: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config

    @property
    def samples(self) -> int:
        """Samples that the networks were trained on, each as often as it was seen."""
        return int(self.checkpoint.step * self.config.get("optim", {}).get("batch_size", 0))

    def parameters(self, network: str) -> int:
        """Number of parameters of a network, 0 if it is absent."""
        return sum(one.numel() for name, one in self.checkpoint.model.items() if name.startswith(f"{network}."))


def facts_of(name: str, checkpoint: Checkpoint, run_dir: Path | None = None, trust: bool = False) -> Facts:
    """Gather what is known.

    run_dir: where the networks were trained, if that is known. trust: whether code that the config names, beyond
    installed modalities, may be imported to count the data.
    """
    known = removed_paths(checkpoint.config)
    results = _results(run_dir, known) if run_dir else {}
    metrics = read_metrics(run_dir) if run_dir else []
    signs = results.get("collapse") or (metrics[-1] if metrics else {})
    data, generated = _data(checkpoint, run_dir, trust)
    return Facts(
        name,
        replace(checkpoint, config=without_paths(checkpoint.config), optimizer={}),
        tuple(without_paths_in_text(line, known) for line in data),
        generated,
        results,
        {key: signs[key] for key in _SIGNS if key in signs} if all(key in signs for key in _SIGNS) else {},
        tuple(_collapse_warnings(signs)),
    )


def _results(run_dir: Path, known: list[str]) -> dict[str, Any]:
    path = run_dir / "results.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}; write it again with jepa evaluate") from error
    return cleaned_texts(found, known) if isinstance(found, dict) else {}


def _collapse_warnings(signs: Mapping[str, Any]) -> list[str]:
    """Warnings about signs of collapse, of every stream that has signs."""
    prefixes = [key.removesuffix("target_std") for key in signs if key.endswith("target_std")]
    found = []
    for prefix in prefixes:
        values = [signs.get(f"{prefix}{key}") for key in _SIGNS]
        if all(isinstance(value, (int, float)) for value in values):
            measured = signs.get("samples", FEW)
            found.append(CollapseSigns(*values).warning(prefix.rstrip("_"), measured))  # type: ignore[arg-type]
    return [text for text in found if text]


def _data(checkpoint: Checkpoint, run_dir: Path | None, trust: bool) -> tuple[list[str], bool]:
    """Lines about the data that networks were trained on, and whether it is generated."""
    if run_dir is None:
        return _recorded(checkpoint, None), False
    try:
        with importing(run_dir, checkpoint.config, trust):
            config, modality = configured(checkpoint)
            if line := generated_line(config.data):
                return [line], True
            modality.index_folder = index_of_run(run_dir)
            return _split_lines(config, modality), False
    except (CheckpointError, ConfigError, DataError, UnknownModalityError, OSError, ValueError) as error:
        reason = "the data is not on the machine that wrote this card" if "exist" in str(error) else str(error)
        return [*_recorded(checkpoint, run_dir), f"The splits could not be counted: {reason}."], False


def _split_lines(config: Config[Any, Any], modality: Modality[Any]) -> list[str]:
    lines = []
    for split in splits_of(replace(config.evaluate, enabled=True)):
        samples = open_split(modality, split)
        lines.append(split_line(split, len(samples), replace(summary_of(samples), where="", passed_over={}, notes=())))
    return lines


def _recorded(checkpoint: Checkpoint, run_dir: Path | None) -> list[str]:
    """What is known without opening the data: its kind, and the number of samples that the run noted."""
    source = checkpoint.config["data"].get("source")
    lines = [f"data.source={source}"] if source else []
    path = run_dir / "data.json" if run_dir else None
    if path is not None and path.is_file():
        try:
            lines.append(f"train: {json.loads(path.read_text())['samples']:,} samples")
        except (ValueError, KeyError, TypeError):
            lines.append("train: number of samples unknown, as the run's record is damaged")
    return lines
