"""The clips of the instruments as wav files on disk, recorded once, and what is known about each."""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from jepa.modality import Sample, Split
from jepa_audio.instruments import INSTRUMENTS, RATE
from jepa_audio.recording import record
from jepa_audio.waves import write_wave

VERSION = 1  # to be raised with every change that alters a sample or a label
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class OrchestraConfig:
    """Which clips: another seed is other music by the same instruments; numbers of clips of each split."""

    seed: int = 0
    train: int = 6_000
    validation: int = 1_000
    test: int = 1_000

    def __post_init__(self) -> None:
        if self.seed < 0 or min(self.train, self.validation, self.test) < 1:
            raise ValueError("a seed is not negative, and every split has at least one clip")


class Orchestra:
    """What `read` makes of clips of 1.2 seconds; labels `class`, in INSTRUMENTS, `pitch` and `onset`, see Clip."""

    def __init__(self, config: OrchestraConfig, split: Split, read: Callable[[Path], Tensor]) -> None:
        count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        name = f"instruments-v{VERSION}-seed{config.seed}-{split}-{count}"
        self.folder = _complete(_cache() / name, lambda part: _fill(part, config.seed, split, count))
        self.read, self.classes = read, INSTRUMENTS
        with (self.folder / "labels.csv").open(newline="") as file:
            self.known = list(csv.DictReader(file))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> Sample:
        known = self.known[index]
        labels = {
            "class": INSTRUMENTS.index(known["instrument"]),
            "pitch": float(known["pitch"]),
            "onset": float(known["onset"]),
        }
        return Sample(self.read(self.folder / known["file"]), labels)


def _fill(folder: Path, seed: int, split: Split, count: int) -> None:
    """Write clips into class folders, as people keep their own, and a table of what is known about them."""
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


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openjepa" / "audio"


def _complete(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, filled now if it is not there. It gets its name when it is whole; who else wants it waits."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock"), fallback_to_soft=False):  # the system drops it with the process
        if folder.is_dir():
            return folder
        for abandoned in folder.parent.glob(f"{folder.name}.part-*"):
            shutil.rmtree(abandoned)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        fill(part)
        part.chmod(0o755)
        part.replace(folder)
    return folder
