"""Small encoders of our own, by name: `jepa.load("demo-image")`. `make weights` trains them."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jepa.checkpoint import CheckpointError
from jepa.disk.cache import user_cache

FOLDER = "weights"  # in the working directory, in the checkout, and in the user's cache


@dataclass(frozen=True)
class Demo:
    """How an encoder of our own is trained; paths are those of a checkout.

    package: folder of the package that holds the modality, if that is not ours.
    """

    modality: str
    recipe: str
    package: str = ""


DEMOS = {
    "demo-image": Demo("image", "configs/image.yaml"),
    "demo-video": Demo("video", "configs/video.yaml"),
    "demo-audio": Demo(
        "jepa_audio.modality:Audio", "examples/audio/jepa_audio/configs/audio.yaml", package="examples/audio"
    ),
    "demo-time-series": Demo(
        "jepa_time_series.modality:TimeSeries",
        "examples/time_series/jepa_time_series/configs/time-series.yaml",
        package="examples/time_series",
    ),
}


def folders() -> list[Path]:
    """Where encoders are looked for by name, in order."""
    checkout = Path(__file__).resolve().parent.parent.parent
    return [Path(FOLDER), checkout / FOLDER, user_cache(FOLDER)]


def named(source: Path | str) -> Path | None:
    """The folder of an encoder of our own; None if the source is a path or no such name.

    Raises CheckpointError, with what to do, if it was not trained on this machine or its modality is not installed.
    """
    name = str(source)
    if name not in DEMOS or os.path.lexists(name):
        return None
    demo, looked = DEMOS[name], [folder / name for folder in folders()]
    found = next((folder for folder in looked if (folder / "config.json").is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{name} is not on this machine (looked for: {', '.join(map(str, looked))}); in a checkout of openjepa, "
            f"`make weights WEIGHTS={name}` trains it in minutes"
        )
    if demo.package and find_spec(demo.modality.partition(".")[0]) is None:
        raise CheckpointError(f"{name} needs its modality: pip install {demo.package} in a checkout of openjepa")
    return found
