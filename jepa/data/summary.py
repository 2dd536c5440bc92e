"""The first lines of a run, about what it reads: samples, classes, splits, and what is passed over.

Samples may have a `summary` with what their source found, and the methods `digest` and `name_of`. Without them their
number is reported, and they are named by their index.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, get_args

from jepa.console import CONSOLE, shown, warn_once
from jepa.data.batches import open_split
from jepa.disk.columns import Streamed, bytes_of
from jepa.modality import DataConfig, Modality, Samples, Split
from jepa.probe.protocol import EvaluateConfig

_SHOWN = 3  # classes, endings


@dataclass(frozen=True)
class SplitSummary:
    """What a source found for one split.

    noun: what the samples are, in the plural. where: what holds them, as in `below photos`. classes: their names, () if
    the samples have no labels, None if the source has its own labels. held_out: numbers of samples that other splits
    took from the training set. shared: splits that are a tenth of the training set each, but are also trained on.
    origin: where another split was taken from, unless it is stored. passed_over: number of files that are no samples,
    by ending; a key such as `the folder extra` is one thing. notes: sentences about what may be a mistake.
    """

    noun: str = "samples"
    where: str = ""
    classes: Sequence[str] | None = None
    held_out: Mapping[Split, int] = field(default_factory=dict)
    shared: Sequence[Split] = ()
    origin: str = ""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def of_split(self, split: Split, carved: Sequence[Split], sizes: Mapping[Split, int]) -> "SplitSummary":
        """The summary of a split that is the training set, is carved from it, or is stored.

        carved: splits that are carved from the training set. sizes: of these splits; empty if training keeps them.
        """
        if split in carved:
            origin = "held out from train" if sizes else "a tenth of train, which is also trained on"
            return replace(self, origin=origin, where="", passed_over={}, notes=())
        if split == "train":
            return replace(
                self, held_out={each: sizes[each] for each in carved if sizes}, shared=() if sizes else carved
            )
        return self


def summary_of(samples: Samples) -> SplitSummary:
    """The summary of samples; an empty one if their source makes none."""
    found = getattr(samples, "summary", None)
    return found if isinstance(found, SplitSummary) else SplitSummary()


def digest_of(samples: Samples) -> str:
    """A digest of the names of the samples, as long as their source has names; otherwise empty."""
    digest = getattr(samples, "digest", None)
    return str(digest()) if digest is not None else ""


def digest(*parts: bytes | bytearray | memoryview | Streamed) -> str:
    """A short digest of long lists, given as buffers."""
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update((part.nbytes if isinstance(part, Streamed) else len(part)).to_bytes(8, "little"))
        for block in bytes_of(part) if isinstance(part, Streamed) else (part,):
            whole.update(block)
    return whole.hexdigest()


def splits_of(evaluate: EvaluateConfig, probes: bool = False) -> tuple[Split, ...]:
    """The splits that a run and its evaluation read; probes: whether there are probes during training."""
    if not evaluate.enabled:
        return ("train", "validation") if probes else ("train",)
    return ("train", "validation", "test") if evaluate.scored_split == "test" else ("train", "validation")


def say_data(modality: Modality[Any], evaluate: EvaluateConfig, probes: bool = False) -> None:
    """Print what a run and its evaluation read, and warnings; raises DataError if a split cannot be opened."""
    for line in summary_lines(modality, splits_of(evaluate, probes)):
        CONSOLE.print(shown(line))
    for warning in modality.data_warnings():
        warn_once(warning)


def summary_lines(modality: Modality[Any], splits: Sequence[Split] = ("train",)) -> list[str]:
    """A line for each split, and one for each note; raises DataError if a split cannot be opened."""
    if generated := generated_line(modality.config):
        return [generated]
    lines: dict[str, None] = {}  # each once: splits of one folder have the same notes
    for split in splits:
        samples = open_split(modality, split)
        summary = summary_of(samples)
        lines[split_line(split, len(samples), summary)] = None
        lines.update(dict.fromkeys(f"note: {note}" for note in summary.notes))
    return list(lines)


def generated_line(data: DataConfig) -> str:
    """The numbers of generated samples, if the settings with the name of the source state them; otherwise empty."""
    settings = getattr(data, data.source or "", None) if data.root is None else None
    counts = {split: getattr(settings, split, None) for split in get_args(Split)}
    if not all(isinstance(count, int) for count in counts.values()):
        return ""
    return f"generated {data.source}: " + ", ".join(f"{count:,} for {split}" for split, count in counts.items())


def split_line(split: Split, count: int, summary: SplitSummary) -> str:
    """The line of a split with this number of samples."""
    return f"{split}: {'; '.join(_parts(split, count, summary))}"


def _parts(split: Split, count: int, summary: SplitSummary) -> Iterator[str]:
    where = f" {summary.where}" if summary.where else ""
    yield f"{count:,} {summary.noun}{_classes(summary.classes)}{where}"
    if summary.origin:
        yield summary.origin
    if summary.held_out:
        yield "held out from it: " + ", ".join(f"{count:,} for {name}" for name, count in summary.held_out.items())
    if summary.shared:
        each = " each" if len(summary.shared) > 1 else ""
        yield f"a tenth of them{each} is also used for {' and '.join(summary.shared)}"
    if summary.passed_over:
        yield f"passed over: {counted(summary.passed_over)}"


def counted(found: Mapping[str, int]) -> str:
    """Counts by ending, the greatest first: 45 .heic, 5 without ending, the folder extra."""
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    named = [name if name.startswith("the ") else f"{count:,} {name}" for name, count in ordered[: 2 * _SHOWN]]
    more = len(ordered) - len(named)
    return ", ".join([*named, *([f"{more} more kinds"] if more else [])])


def _classes(classes: Sequence[str] | None) -> str:
    if classes is None:
        return ""
    if not classes:
        return " without classes"
    names = f"{', '.join(classes[:_SHOWN])}{', ...' if len(classes) > _SHOWN else ''}"
    return f" in {len(classes):,} class{'es' if len(classes) > 1 else ''} ({names})"
