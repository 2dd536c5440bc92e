"""The settings `target`, `curriculum` and `momentum` of earlier versions as `stages`."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from jepa.config import ConfigError

FORMER = ("target", "curriculum", "momentum")
_MOMENTA = {"ema": ("linear", "start", "end"), "half_life": ("half_life", "start_samples", "end_samples")}
Tree = dict[str, Any]
# Numbers that the translation computes with: the least, whether that itself is excluded, and the largest.
_RANGES = {
    "steps": (1, False, float("inf")),
    "curriculum.pixel_weight": (0, False, float("inf")),
    "curriculum.latent_from": (0, False, 1),
    "momentum.start": (0, False, 1),
    "momentum.end": (0, False, 1),
    "momentum.start_samples": (0, True, float("inf")),
    "momentum.end_samples": (0, True, float("inf")),
    "optim.schedule_length": (0, True, float("inf")),
}


def current(config: Mapping[str, Any]) -> Tree:
    """A stored config, perhaps of an earlier version, in the settings of this one.

    Raises ConfigError for a former setting that has no meaning.
    """
    kept = {name: value for name, value in config.items() if name not in FORMER}
    return kept if len(kept) == len(config) else {**kept, "stages": _stages(config)}


def former(config: Tree) -> Tree:
    """A config with `stages` as the settings of earlier versions, in their order, if these can express it.

    Names of run directories are hashes of settings; a run started by an earlier version keeps its name.
    """
    stages = config["stages"]
    if not all(isinstance(stage, Mapping) and _is_whole(stage) for stage in stages):
        return config  # settings that were not validated
    first, last = stages[0], stages[-1]
    kind = last["teacher"]["kind"]
    if any(stage["teacher"]["kind"] != kind for stage in stages) or kind not in _MOMENTA:
        return config
    target = next((one for one in last["predict"] if one != "pixels"), "pixels")
    weight = last["predict"].get("pixels", 0.0) if target != "pixels" else 0.0
    name, start, end = _MOMENTA[kind]
    settings = {
        "target": target,
        "curriculum": {"pixel_weight": weight, "latent_from": first["until"] if len(stages) > 1 else 0.0},
        "momentum": {"kind": name, start: first["teacher"][start], end: last["teacher"][end]},
    }
    if _stages({**config, **settings}) != stages:
        return config
    before = {"stages": ("target", "curriculum"), "compute": ("momentum",)}  # where they stood
    ordered: Tree = {}
    for key, value in config.items():
        ordered |= {one: settings[one] for one in before.get(key, ())}
        ordered |= {key: value} if key != "stages" else {}
    return ordered


def _is_whole(stage: Mapping[str, Any]) -> bool:
    """Whether a stage has all its settings, written out."""
    teacher = stage.get("teacher")
    written = isinstance(stage.get("predict"), Mapping) and isinstance(teacher, Mapping) and "until" in stage
    names = _MOMENTA.get(teacher.get("kind", ""), ()) if isinstance(teacher, Mapping) else ()
    return written and all(name in (teacher or {}) for name in ("kind", *names[1:]))


def new_spelling(tree: Tree) -> str:
    """What a user wrote with settings of earlier versions, as overrides of this one.

    tree: a config with both the former settings that the user wrote, and `stages`.
    """
    _check(tree)
    if "target" in tree or "curriculum" in tree:
        stages = _stages({**tree, "curriculum": _complete(tree)})
        given = ("until", "predict", "teacher") if "momentum" in tree else ("until", "predict")
        shown = [{name: stage[name] for name in given if stage[name] != 1.0} for stage in stages]
        return f"stages=[{', '.join(map(_flow, shown))}]"
    steps, ends = tree.get("steps", 10_000), [0]
    ends += [round(stage.get("until", 1) * steps) for stage in tree["stages"]]
    teachers = _teachers(tree, ends)
    return " ".join(f"stages.{number}.teacher={_flow(teacher)}" for number, teacher in enumerate(teachers))


def _complete(tree: Tree) -> Tree:
    """The curriculum that a user wrote; before representations start, something else was predicted."""
    curriculum = _section(tree, "curriculum")
    return {"pixel_weight": 1.0, **curriculum} if curriculum.get("latent_from") else {**curriculum}


def _check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a former setting, or one that its translation reads, that has no meaning."""
    for name in ("curriculum", "momentum", "optim"):
        if not isinstance(section := config.get(name, {}), Mapping):
            raise ConfigError(f"{name}: should be a section of settings, not {section!r}")
    target, kind = config.get("target", "latent"), _section(config, "momentum").get("kind", "linear")
    if not isinstance(target, str):
        raise ConfigError(f"target: should be the name of a kind of target, not {target!r}")
    if kind not in ("linear", "half_life"):
        raise ConfigError(f"momentum.kind: should be linear or half_life, not {kind!r}")
    for path, (least, is_excluded, largest) in _RANGES.items():
        section, name = path.rpartition(".")[::2]
        value = (_section(config, section) if section else config).get(name, 1)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= largest or value == float("inf") or (is_excluded and value == least):
            words = f"above {least}" if is_excluded else f"of at least {least}"
            words += "" if largest == float("inf") else f" and at most {largest}"
            raise ConfigError(f"{path}: should be a number {words}, not {value!r}")


def _stages(config: Mapping[str, Any]) -> list[Tree]:
    _check(config)
    target, curriculum = config.get("target", "latent"), _section(config, "curriculum")
    weight, share = curriculum.get("pixel_weight", 0.0), curriculum.get("latent_from", 0.0)
    steps = config.get("steps", 10_000)
    before = round(share * steps)
    if target == "pixels" or not before:
        predict = {"pixels": weight, target: 1.0} if weight and target != "pixels" else {target: 1.0}
        return [{"until": 1.0, "predict": predict, "teacher": _teachers(config, (0, steps))[0]}]
    first, last = _teachers(config, (0, before, steps))
    return [
        {"until": share, "predict": {"pixels": weight}, "teacher": first},
        {"until": 1.0, "predict": {"pixels": weight, target: 1.0}, "teacher": last},
    ]


def _teachers(config: Mapping[str, Any], ends: Sequence[int]) -> list[Tree]:
    """The momentum over a whole run as a teacher of each stage, with the values of the run at the stages' ends.

    ends: the first step, and the end of every stage. As schedules may be longer than a run, and are then longer than a
    stage by the same factor, the last value of a teacher may lie beyond its stage.
    """
    momentum, steps = _section(config, "momentum"), ends[-1]
    length = _section(config, "optim").get("schedule_length", 1.0)
    is_linear = momentum.get("kind", "linear") == "linear"
    names = ("start", "end") if is_linear else ("start_samples", "end_samples")
    start, end = (momentum.get(name, default) for name, default in zip(names, (0.996, 1.0), strict=True))

    def value(from_: float, share: float) -> float:
        if start == end:
            return float(start)
        # Rounded, as 0.98 + 0.02 must not lie above 1.
        return float(round(from_ + (end - start) * share if is_linear else from_ * (end / start) ** share, 15))

    found = []
    for first, last in pairwise(ends):
        begin = value(start, first / (steps * length))
        stop = value(begin, (last - first) / steps)
        found.append({"kind": "ema" if is_linear else "half_life", names[0]: begin, names[1]: stop})
    return found


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _flow(value: Any) -> str:
    """Plain data as YAML in one line; a lone kind of target has weight 1."""
    if isinstance(value, Mapping):
        parts = (
            f"{key}: {next(iter(one)) if key == 'predict' and list(one.values()) == [1.0] else _flow(one)}"
            for key, one in value.items()
        )
        return f"{{{', '.join(parts)}}}"
    return value if isinstance(value, str) else json.dumps(value)
