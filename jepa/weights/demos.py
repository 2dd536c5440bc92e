"""Small encoders of our own, by name: `jepa.load("demo-image")`. `make weights` trains them."""

import os
from dataclasses import dataclass
from pathlib import Path

from jepa.checkpoint import CheckpointError
from jepa.disk.cache import user_cache

FOLDER = "weights"  # in the working directory, in the checkout, and in the user's cache


@dataclass(frozen=True)
class Demo:
    """How an encoder of our own is trained. package: folder of the package of its modality, unless that is ours."""

    modality: str
    recipe: str
    package: str = ""


DEMOS = {
    "demo-image": Demo("image", "image"),
    "demo-video": Demo("video", "video"),
    "demo-audio": Demo("jepa_audio.modality:Audio", "audio", "examples/audio"),
    "demo-time-series": Demo("jepa_time_series.modality:TimeSeries", "time-series", "examples/time_series"),
}


def folders() -> list[Path]:
    """Where encoders are looked for by name, in order."""
    checkout = Path(__file__).resolve().parent.parent.parent
    return [Path(FOLDER), checkout / FOLDER, user_cache(FOLDER)]


def named(source: Path | str) -> Path | None:
    """The folder of an encoder of our own; None if the source is a path or no such name.

    Raises CheckpointError, with the way to make it, if it was not trained on this machine.
    """
    name = str(source)
    if name not in DEMOS or os.path.lexists(name):
        return None
    for folder in folders():
        if (folder / name / "config.json").is_file():
            return folder / name
    looked = ", ".join(str(folder / name) for folder in folders())
    raise CheckpointError(
        f"{name} is not on this machine; `make weights WEIGHTS={name}` in a checkout of openjepa trains it in minutes "
        f"(looked for: {looked})"
    )
