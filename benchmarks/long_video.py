"""Milliseconds per clip of long and short videos: python -m benchmarks.long_video --json FILE.json

Two videos are made for it, of a minute and of two hours, 64 x 48 pixels, a key frame every 50 frames. Clips have 16
frames, every second one from a random start. The first clip of a video indexes its file; then clips of both alternate.
"""

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch

from benchmarks import provenance
from jepa.data import seeded
from modalities.video.decode.video import EncodedVideo
from modalities.video.views import random_frames

_RATE, _HEIGHT, _WIDTH = 25, 48, 64
_MINUTES = {"a minute": 1, "two hours": 120}


def write_video(path: Path, frames: int) -> None:
    """Grey frames whose brightness goes round."""
    pictures = [np.full((_HEIGHT, _WIDTH, 3), 10 + number % 200, np.uint8) for number in range(250)]
    stored = [av.VideoFrame.from_ndarray(one, format="rgb24").reformat(format="yuv420p") for one in pictures]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=_RATE)
        stream.height, stream.width, stream.pix_fmt = _HEIGHT, _WIDTH, "yuv420p"
        stream.codec_context.gop_size = 50
        for number in range(frames):
            frame = stored[number % len(stored)]
            frame.pts, frame.time_base = number, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def milliseconds(path: Path, *key: int | str) -> float:
    """Time to open a file and read a clip."""
    start = time.perf_counter()
    EncodedVideo(path).clip(lambda info: random_frames(info, 16, 2.0, seeded(*key)), _HEIGHT)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Measure, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50, help="after the first one, of each video")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, numbers = [], []
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("mp4", "mkv", "avi", "ts"):
            files = {length: Path(folder, f"{minutes}.{ending}") for length, minutes in _MINUTES.items()}
            for length, path in files.items():
                write_video(path, _MINUTES[length] * 60 * _RATE)
            milliseconds(files["a minute"], "warm-up", ending)
            files["a minute"].touch()  # indexed again
            first = {length: milliseconds(path, "first", ending) for length, path in files.items()}
            later: dict[str, list[float]] = {length: [] for length in files}
            for number in range(options.clips):
                for length, path in files.items():
                    later[length].append(milliseconds(path, number, ending))
            for length in files:
                found = {"format": ending, "length": length, "first": first[length], "later": median(later[length])}
                numbers.append(found)
                rows.append([ending, length, f"{found['first']:.1f}", f"{found['later']:.2f}"])
    source = provenance.provenance("benchmarks.long_video")
    table = provenance.table(["format", "video", "first clip, ms", "later clips, ms (median)"], rows)
    provenance.write(options.json, {**source, "videos": numbers}, f"{provenance.heading(source)}\n\n{table}")


if __name__ == "__main__":
    main()
