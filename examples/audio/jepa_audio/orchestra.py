"""Clips of the instruments as a data set: written once as wav files, with a table of labels."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import Tensor

from jepa.modality import Sample, Split
from jepa_audio.instruments import INSTRUMENTS, RATE
from jepa_audio.recording import record
from jepa_audio.waves import write_wave
from modalities.storage.generated import user_cache, write_once

VERSION = 1  # raise it with every change of a sample or a label
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class OrchestraConfig:
    """seed: another seed gives other clips. train, validation, test: clips generated for each split."""

    seed: int = 0
    train: int = 6_000
    validation: int = 1_000
    test: int = 1_000

    def __post_init__(self) -> None:
        if self.seed < 0 or min(self.train, self.validation, self.test) < 1:
            raise ValueError("seed must not be negative, and every split needs at least one clip")


class Orchestra:
    """Clips of 1.2 seconds, read with `read`; labels: `class` (in INSTRUMENTS), `pitch` and `onset` as in Clip."""

    def __init__(self, config: OrchestraConfig, split: Split, read: Callable[[Path], Tensor]) -> None:
        count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        name = f"instruments-v{VERSION}-seed{config.seed}-{split}-{count}"
        write = partial(_write_clips, seed=config.seed, split=split, count=count)
        self.folder, self.read = write_once(user_cache("audio") / name, write), read
        with (self.folder / "labels.csv").open(newline="") as file:
            self.rows = list(csv.DictReader(file))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        labels = {
            "class": INSTRUMENTS.index(row["instrument"]),
            "pitch": float(row["pitch"]),
            "onset": float(row["onset"]),
        }
        return Sample(self.read(self.folder / row["file"]), labels)


def _write_clips(folder: Path, seed: int, split: Split, count: int) -> None:
    """Write clips into class folders, and labels.csv beside them."""
    for instrument in INSTRUMENTS:
        (folder / instrument).mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "instrument", "pitch", "onset"))
        for index in track(range(count), f"recording instruments: {split}", console=Console(stderr=True)):
            clip = record(seed, _SPLITS.index(split), index)
            path = f"{clip.instrument}/{index:06}.wav"
            write_wave(folder / path, clip.wave, RATE)
            table.writerow((path, clip.instrument, clip.pitch, clip.onset))
