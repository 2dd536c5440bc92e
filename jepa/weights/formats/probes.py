"""Attentive probes: those of V-JEPA's and V-JEPA 2's authors, and of transformers' VJEPA2ForVideoClassification."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.checkpoint import CheckpointError
from jepa.probe.saved import SavedProbe
from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.settings import heads_of
from jepa.weights.formats.stored import SETTINGS, Stored, open_stored

_CROSS, _BOTH = "pooler.cross_attention_block.", "xattn.kv"  # keys and values are one layer there
_BLOCKS = {"norm1": "norm1", "attention.qkv": "attn.qkv", "attention.proj": "attn.proj", "norm2": "norm2"}
_BLOCKS |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
_OFFICIAL = (
    Entry("query", ("pooler.query_tokens",), ("",), "token"),
    layer("to_query", f"{_CROSS}xattn.q"),
    layer("to_key", f"{_CROSS}{_BOTH}.key"),
    layer("to_value", f"{_CROSS}{_BOTH}.value"),
    *(layer(ours, f"{_CROSS}{_BLOCKS[ours]}") for ours in ("norm1", "norm2", "mlp.0", "mlp.2")),
    layer("classifier", "linear"),
)
_OFFICIAL_BLOCKS = tuple(layer(f"blocks.*.{ours}", f"pooler.blocks.*.{theirs}") for ours, theirs in _BLOCKS.items())
_UNUSED = f"{_CROSS}xattn.proj."  # of V-JEPA, whose code has this layer without using it

_LAYER, _SELF = "pooler.cross_attention_layer.", "pooler.self_attention_layers.*."
_NORMS = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
_TRANSFORMERS = (
    Entry("query", ("pooler.query_tokens",), ("",), "token"),
    *(layer(f"to_{name}", f"{_LAYER}cross_attn.{name[0]}_proj") for name in ("query", "key", "value")),
    *(layer(ours, f"{_LAYER}{theirs}") for ours, theirs in _NORMS.items()),
    layer("classifier", "classifier"),
)
_TRANSFORMERS_BLOCKS = (
    layer("blocks.*.attention.qkv", *(f"{_SELF}self_attn.{part}_proj" for part in "qkv")),
    layer("blocks.*.attention.proj", f"{_SELF}self_attn.out_proj"),
    *(layer(f"blocks.*.{ours}", f"{_SELF}{theirs}") for ours, theirs in _NORMS.items()),
)


def official(has_blocks: bool) -> Table:
    """Names in the authors' code."""
    return Table(*_OFFICIAL, *(_OFFICIAL_BLOCKS if has_blocks else ()))


def transformers(has_blocks: bool) -> Table:
    """Names in VJEPA2ForVideoClassification."""
    return Table(*_TRANSFORMERS, *(_TRANSFORMERS_BLOCKS if has_blocks else ()))


def read_probe(path: Path, number: int = 0, heads: int | None = None) -> tuple[SavedProbe, tuple[str, ...]]:
    """The probe in a file or folder, with notes. number: of a file with several. heads: of a file that does not say.

    Raises CheckpointError.
    """
    stored = open_stored(path)
    try:
        if SavedProbe.recognises(stored.content):
            return SavedProbe.load(path), ()
        if "classifier.weight" in stored.content:
            return _of_transformers(stored)
        return _of_authors(stored, number, heads)
    except ValueError as error:
        raise CheckpointError(f"{path} holds no attentive probe that is known here: {error}") from error


def holds_probe(path: Path) -> bool:
    """Whether a path is a file with an attentive probe and no networks."""
    if not path.is_file() or path.suffix == ".safetensors":
        return False
    content = open_stored(path).content
    return SavedProbe.recognises(content) or (
        isinstance(content, dict) and any(isinstance(content.get(key), (list, dict)) for key in _KEYS)
    )


def check_probe(ours: SavedProbe, theirs: SavedProbe) -> None:
    """Raise CheckpointError if two probes differ."""
    same = ours.weights.keys() == theirs.weights.keys() and replace(ours, weights={}) == replace(theirs, weights={})
    if not same or not all(torch.equal(one, theirs.weights[name]) for name, one in ours.weights.items()):
        raise CheckpointError("the written probe differs; not kept")


_TO_USE = ("classes", "centre", "scale", "grid", "averaged")  # ours in a file of the authors, whose code ignores them
_KEYS = ("classifiers", "classifier")  # of V-JEPA 2, with one per hyperparameters, and V-JEPA


def _of_authors(stored: Stored, number: int, heads: int | None) -> tuple[SavedProbe, tuple[str, ...]]:
    found = next((stored.content[key] for key in _KEYS if key in stored.content), None)
    states = found if isinstance(found, list) else [found]
    if not all(isinstance(one, Mapping) for one in states):
        raise ValueError("it has neither classifiers nor classifier")
    if number >= len(states):
        raise ValueError(f"it holds {len(states)} probes, numbered from 0, and none of number {number}")
    state = {name.removeprefix("module."): value for name, value in dict(states[number] or {}).items()}
    state = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    for kind in ("weight", "bias"):
        if isinstance(both := state.pop(f"{_CROSS}{_BOTH}.{kind}", None), Tensor):
            parts = dict(zip(("key", "value"), both.chunk(2), strict=True))
            state |= {f"{_CROSS}{_BOTH}.{name}.{kind}": part for name, part in parts.items()}
    has_blocks = any(name.startswith("pooler.blocks.") for name in state)
    if has_blocks and "classifiers" not in stored.content:
        raise ValueError("V-JEPA's blocks follow the cross-attention, and the probe here has none there")
    weights = official(has_blocks).to_ours(state)
    notes = [f"it holds {len(states)} probes, and this is number {number}"] if len(states) > 1 else []
    settings, width = stored.settings, len(weights["query"])
    known = heads or settings.get("heads")
    heads = known or heads_of(width)
    if width % heads:
        raise ValueError(f"its width {width} does not divide into {heads} heads")
    if not known:
        notes.append(f"{heads} heads, a guess from the width, as no weight tells; --heads N sets another number")
    how = {name: settings[name] for name in _TO_USE if name in settings}
    return SavedProbe(weights, heads, tuple(how.pop("classes", ())), **how), tuple(notes)


def _of_transformers(stored: Stored) -> tuple[SavedProbe, tuple[str, ...]]:
    state = {name: one for name, one in stored.content.items() if name.startswith(("pooler.", "classifier."))}
    weights = transformers(any(".self_attention_layers." in name for name in state)).to_ours(state)
    names = stored.config.get("id2label") or {}
    classes = tuple(names[one] for one in sorted(names, key=int))
    heads = stored.config.get("num_attention_heads") or heads_of(len(weights["query"]))
    return SavedProbe(weights, heads, classes if len(classes) == len(weights["classifier.weight"]) else ()), ()


def write_official(probe: SavedProbe, path: Path) -> None:
    """Write a file that V-JEPA 2's evaluation reads, and with one block V-JEPA's too.

    That code gives the output of a probe of numbers as it is, which is (number - centre) / scale.
    """
    state = official(probe.blocks > 1).to_theirs(probe.weights, ())
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{_CROSS}{_BOTH}.{name}.{kind}") for name in ("key", "value")]
        state[f"{_CROSS}{_BOTH}.{kind}"] = torch.cat(parts)
    named = {f"module.{name}": value for name, value in state.items()}
    settings = {"heads": probe.heads} | {name: getattr(probe, name) for name in _TO_USE}
    content: dict[str, Any] = {"classifiers": [named], "epoch": 0, SETTINGS: settings}
    if probe.blocks == 1:
        width = len(probe.weights["query"])
        unused = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}
        content["classifier"] = named | {f"module.{_UNUSED}{kind}": value for kind, value in unused.items()}
    torch.save(content, path)
