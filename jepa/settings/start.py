"""The settings that a run takes over with the networks that it starts from (`start_from`)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from jepa.checkpoint import Checkpoint
from jepa.compat.stages import current
from jepa.config import ConfigError, Tree, build, differences, merge, plain, read_yaml
from jepa.config.effects import is_set, value_at
from jepa.data import seeded
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.plugins.registry import declared_name
from jepa.settings.layers import Layers
from jepa.training.config import Config, one_spelling
from jepa.weights.load import construct
from jepa.weights.outputs import with_outputs
from jepa.weights.start import ENCODERS, fitting, networks, read_start
from jepa.weights.trust import functions_in, predicted_functions

StartUse = Literal["ignored", "tried", "read"]
_SECTIONS = ("modality", "run_dir", "data", "model", "loss", "stages")
_ALWAYS_SAID = ("data.", "model.size", "model.positions", "model.predictor")


@dataclass(frozen=True)
class Start:
    """Networks to start from. settings: a layer of a config with what belongs to them. modality: theirs."""

    source: str
    checkpoint: Checkpoint
    settings: Tree
    modality: Modality[Any]

    def fitted(self, config: Config[Any, Any], modality: Modality[Any], users: Tree) -> Tree:
        """Settings that follow from the run's own grid and masks, unless the user has set them."""
        layer: Tree = {}
        grid = self.modality.config.position_grid or self.modality.grid
        is_other = grid != modality.grid and len(grid) == len(modality.grid)
        goes_on = config.model.positions.startswith("rotary_vjepa2")  # beyond the trained grid
        is_scaled = is_other and not goes_on
        if is_scaled and type(modality).positions is Modality.positions and not is_set(users, "data.position_grid"):
            layer["data"] = {"position_grid": list(grid)}
        is_shared = config.model.predictor.share_mask_token
        sets = 1 if is_shared else len(modality.sample_masks(1, seeded("masks", config.seed, 0)))
        if config.model.predictor.mask_tokens > sets and not is_set(users, "model.predictor.mask_tokens"):
            layer["model"] = {"predictor": {"mask_tokens": sets}}
        return layer

    def check(self, config: Config[Any, Any], modality: Modality[Any]) -> list[str]:
        """What to print about the predictor's outputs.

        Raises ConfigError if a network is missing, or if the config asks for networks of other sizes.
        """
        weights, notes = with_outputs(self.source, self.checkpoint, config, modality)
        with torch.device("meta"):
            model = JEPA(config.model, modality, config.target_kinds)
        try:
            fitting(self.source, weights, model.state_dict(), config.start_fresh)
        except ConfigError as error:
            changed = differences(self.settings, _same_keys(plain(config), self.settings))
            changed.sort(key=lambda line: not line.startswith("model."))
            hint = f"; settings that differ: {', '.join(changed[:3])}" if changed else ""
            raise ConfigError(f"{error}{hint}") from error
        return notes

    def notes(self, layers: Layers) -> list[str]:
        """What to print: a line for each setting of input and networks, and for others that it changes."""
        known, notes = layers.before_start(), []
        if not {*ENCODERS} <= networks(self.checkpoint.model):
            notes.append(f"start_from: {self.source} has one encoder; context and target encoder start from it")
        stages = {str(number): stage for number, stage in enumerate(layers.taken["stages"])}
        if isinstance(layers.chosen.get("stages"), list):
            notes.append(f"stages: the given list replaces the teachers of {self.source} and of the recipe too")
            stages = {}
        taken = {**layers.taken, "stages": stages}
        for path, value in _settings(taken, ("data", "model", "loss", "stages", *(f"stages.{one}" for one in stages))):
            is_news = path.startswith(_ALWAYS_SAID) or value != value_at(known, path)
            if is_news and not is_set(layers.chosen, path):
                text = value if isinstance(value, str) else json.dumps(value)
                notes.append(f"{path}={text}, as in {self.source}")
        return notes


def with_start(layers: Layers, use: StartUse) -> tuple[Layers, Start | None, list[str]]:
    """Layers with what they take over, the networks to start from, and notes; no networks if a run exists already.

    use: `tried` goes without a source that a recipe names, if there is none. Raises ConfigError.
    """
    source = layers.start_from
    if source is None or use == "ignored":
        return layers, None, []
    run = layers.run_dir / "config.yaml"
    if run.exists() and (saved := current(read_yaml(run))).get("start_from") == one_spelling(source):
        names = (*layers.modality_type.config_type.of_networks, "position_grid")
        return replace(layers, taken=_taken(saved, names, layers.chosen)), None, []
    try:
        start = _read(layers, source)
    except ConfigError as error:
        if use == "read" or "start_from" in layers.changes:
            raise
        return layers, None, [f"nothing is taken over: {error}"]
    return replace(layers, taken=start.settings), start, []


def _read(layers: Layers, source: str) -> Start:
    """The networks of a source and what belongs to them; raises ConfigError."""
    checkpoint, chosen = read_start(source), layers.chosen
    theirs, ours = (declared_name(name) for name in (checkpoint.config["modality"], layers.modality_name))
    if theirs != ours:
        raise ConfigError(f"start_from: {source} holds networks of the modality {theirs}, not {ours}")
    tree = {**_without_code(checkpoint.config, source, chosen), "modality": layers.modality_name}
    config, modality = construct(layers.modality_type, build(layers.config_type, [tree]))
    settings = _taken(plain(config), config.data.of_networks, chosen)
    return Start(source, checkpoint, settings, modality)


def _taken(config: Tree, data: Sequence[str], chosen: Tree) -> Tree:
    """What a run takes over from a whole config: the networks, what they were trained for, and some of the data."""
    model = dict(config["model"])
    if "predictor" in chosen.get("start_fresh", ()):
        del model["predictor"]
    return {
        "data": {name: value for name, value in config["data"].items() if name in data},
        "model": model,
        "loss": config["loss"],
        "stages": [{**config["stages"][-1], "until": 1.0}],  # as they were trained last
    }


def _settings(layer: Tree, sections: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings inside some sections, by path."""
    for name, value in layer.items():
        if f"{prefix}{name}" in sections:
            yield from _settings(value, sections, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _same_keys(tree: Tree, layer: Tree) -> Tree:
    """The parts of a tree that a layer has."""
    return {
        name: _same_keys(tree[name], value) if isinstance(value, dict) and isinstance(tree[name], dict) else tree[name]
        for name, value in layer.items()
        if name in tree
    }


def _without_code(config: Tree, source: str, users: Tree) -> Tree:
    """The sections that matter here; the user must set what names code in them. Raises ConfigError."""
    tree = {name: config[name] for name in _SECTIONS if name in config}
    named = {f"data.{name}": one for name, value in tree["data"].items() for one in functions_in({name: value})}
    if last := predicted_functions({"stages": tree.get("stages", [])[-1:]}):
        named["stages.0.predict"] = " and ".join(last)
    for path, function in named.items():
        if not is_set(users, path):
            raise ConfigError(f"start_from: {source} names the function {function}; set {path} to use it, or another")
    data = {name: value for name, value in tree["data"].items() if f"data.{name}" not in named}
    tree["data"] = data | {path.removeprefix("data."): value_at(users, path) for path in named if path[:5] == "data."}
    return merge(tree, {"stages": users["stages"]}) if "stages.0.predict" in named else tree
