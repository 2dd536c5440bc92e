"""Clips per second on one core by decoder: python -m benchmarks.video_loader --data FOLDER --json FILE.json

A clip has 16 frames, every second one from a random start, at 128 pixels, decoded and cropped as in the workers of a
training; the device normalises it. The decoders take turns on the same clips, in rotating order. CPU time includes the
threads of a decoder; wall time depends on other work of the machine.
"""

import argparse
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks import provenance
from jepa.data import seeded
from modalities.video.decode.stored import StoredVideo, VideoInfo
from modalities.video.decode.video import VIDEO_EXTENSIONS, Decoder, EncodedVideo, usable_decoder
from modalities.video.views import random_clip, random_frames

_FRAMES, _SPACING, _SIDE = 16, 2.0, 128
_DECODERS: tuple[Decoder, ...] = ("torchcodec", "pyav", "decord")


@dataclass(frozen=True)
class Turn:
    """Time and memory of one decoder for the clips of one round."""

    data: str  # the folder of videos
    decoder: Decoder
    round: int
    clips: int
    cpu_seconds: float
    wall_seconds: float
    resident_mb: float


def usable() -> list[Decoder]:
    """The decoders that load here; reasons of the others are printed."""
    decoders: list[Decoder] = []
    for decoder in _DECODERS:
        try:
            decoders.append(usable_decoder(decoder))
        except ValueError as error:
            print(error, file=sys.stderr)
    return decoders


def take_clip(video: StoredVideo, *key: int | str) -> None:
    """Read one clip as in training."""
    generator = seeded(*key)

    def frames(info: VideoInfo) -> list[int]:
        return random_frames(info, _FRAMES, _SPACING, generator)

    clip = video.clip(frames, _SIDE)
    random_clip(clip, (_SIDE, _SIDE), (0.3, 1.0), (0.75, 1.35), False, generator)


def measure(folder: Path, files: list[Path], decoder: Decoder, number: int, clips: int) -> Turn:
    """Time the clips of a round with one decoder."""
    for file in files[:3]:
        take_clip(EncodedVideo(file, decoder=decoder), "warm-up")
    chosen = torch.randint(len(files), (clips,), generator=seeded("files", number)).tolist()
    cpu, wall = time.process_time(), time.perf_counter()
    for place, index in enumerate(chosen):
        take_clip(EncodedVideo(files[index], decoder=decoder), number, place)
    return Turn(
        data=folder.name,
        decoder=decoder,
        round=number,
        clips=clips,
        cpu_seconds=round(time.process_time() - cpu, 4),
        wall_seconds=round(time.perf_counter() - wall, 4),
        resident_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder whose subfolders hold videos; a row each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=100, help="per round and decoder")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    decoders = usable()
    turns = []
    for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
        for number in range(options.rounds):
            order = decoders[number % len(decoders) :] + decoders[: number % len(decoders)]
            turns += [measure(folder, files, decoder, number, options.clips) for decoder in order]
    source = provenance.provenance("benchmarks.video_loader")
    page = f"{provenance.heading(source)}\n\n{table(turns, decoders)}"
    provenance.write(options.json, {**source, "turns": [asdict(turn) for turn in turns]}, page)


def table(turns: list[Turn], decoders: list[Decoder]) -> str:
    """A row per folder and decoder: median over rounds, minimum and maximum in brackets."""
    rows = []
    for folder in dict.fromkeys(turn.data for turn in turns):
        for decoder in decoders:
            own = [turn for turn in turns if (turn.data, turn.decoder) == (folder, decoder)]
            cpu = sorted(1e3 * turn.cpu_seconds / turn.clips for turn in own)
            wall = median(1e3 * turn.wall_seconds / turn.clips for turn in own)
            speed = f"{1e3 / median(cpu):.0f} ({1e3 / cpu[-1]:.0f} to {1e3 / cpu[0]:.0f})"
            rows.append([folder, decoder, speed, f"{median(cpu):.2f}", f"{wall:.2f}"])
    what = f"{_FRAMES} frames, every second one, at {_SIDE} px, decoded and cropped; {turns[0].clips} clips a round."
    headings = ["videos", "decoder", "clips a second of CPU time", "CPU ms a clip", "wall ms a clip"]
    return f"{what}\n\n{provenance.table(headings, rows)}"


if __name__ == "__main__":
    main()
