"""The lines that `jepa data check` prints about what it has read."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from jepa.data import open_split
from jepa.data.summary import summary_of
from jepa.data_check.reading import Size, SplitCheck
from jepa.modality import Modality


def lines(modality: Modality[Any], checks: Sequence[SplitCheck]) -> Iterator[str]:
    """What was read, its sizes and labels, and the speed."""
    noun = summary_of(open_split(modality, "train")).noun
    counts = ", ".join(f"{check.checked:,} of {check.total:,} {check.split}" for check in checks)
    yield f"read: {counts}"
    if sizes := {size for check in checks for size in check.sizes if size}:
        yield f"size as read: {size_range(sizes)}"
    for task in modality.tasks:
        if task.kind != "map":
            found = (f"{check.split} {_labels(check, task.label, task.classes)}" for check in checks if check.checked)
            yield f"label {task.label}: {'; '.join(found)}"
    train = checks[0]
    if train.timed:
        milliseconds = 1000 * train.seconds / train.timed
        speed = train.timed / max(train.seconds, 1e-9)
        yield f"speed: {speed:,.0f} {noun} a second and core, read and cropped as in training ({milliseconds:.1f} ms)"


def size_range(sizes: Collection[Size]) -> str:
    """The range of each axis, for each number of axes: `3 x 240 to 480 x 320`, or `frames 10 to 40, fps 25`."""
    groups: dict[tuple[str, ...], list[Size]] = {}
    for size in sizes:
        groups.setdefault(tuple(name for name, _ in size), []).append(size)
    return "; ".join(_range(names, group) for names, group in groups.items())


def _range(names: Sequence[str], sizes: Sequence[Size]) -> str:
    ranges = []
    for axis, name in enumerate(names):
        lengths = [size[axis][1] for size in sizes]
        low, high = f"{min(lengths):.6g}", f"{max(lengths):.6g}"
        ranges.append(f"{name} {low if low == high else f'{low} to {high}'}".strip())
    return (", " if any(names) else " x ").join(ranges)


def _labels(check: SplitCheck, name: str, classes: Sequence[str]) -> str:
    found = check.labels.get(name, Counter())
    labelled = found.total()
    if not labelled:
        return "none"
    unlabelled = check.checked - len(check.bad) - labelled
    what = f"{len(found)} of {len(classes)} classes" if classes else f"{min(found):g} to {max(found):g}"
    return f"{what} in {labelled:,} samples{f', {unlabelled:,} without' if unlabelled else ''}"


def bad_lines(checks: Sequence[SplitCheck], max_bad_fraction: float) -> Iterator[str]:
    """Every bad sample with its reason, once if splits share it, and how many there are in each split."""
    found = dict.fromkeys(each for check in checks for each in check.bad)
    yield from (f"bad: {source}: {reason}" for source, reason in found)
    if not found:
        yield f"all {sum(check.checked for check in checks):,} samples that were read are good"
        return
    shares = ", ".join(
        f"{len(check.bad):,} of {check.checked:,} {check.split} ({len(check.bad) / check.checked:.1%})"
        for check in checks
        if check.bad
    )
    yield (
        f"bad samples: {shares}; a run skips and lists them, and stops above data.max_bad_fraction={max_bad_fraction:g}"
    )
