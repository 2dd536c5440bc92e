"""Time and memory of opening a data set for the first time, and again from its index, by its size.

    python -m benchmarks.startup --entries 10000 1000000 --json benchmarks/results/startup.json

Entries are lines of a list of videos, empty files in 1,000 class folders, or members of tar files (a picture, a text
and a JSON file per sample, as img2dataset writes them). Each measurement is a process of its own. `private` is the
greatest anonymous memory of the process, with what it takes before it opens anything in brackets.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.provenance import heading, provenance, table, write

PER_TAR = 10_000  # samples
SPLITS: Any = ("train", "validation", "test")


def write_list(root: Path, entries: int) -> None:
    """A list of videos in 400 classes, separated by spaces."""
    with (root / "videos.csv").open("w") as file:
        file.writelines(f"part{number % 1000:04}/video_{number:09}.mp4 {number % 400}\n" for number in range(entries))


def write_folder(root: Path, entries: int) -> None:
    """Empty images in 1,000 class folders."""
    for number in range(min(entries, 1000)):
        (root / f"class{number:04}").mkdir()
    for number in range(entries):
        (root / f"class{number % 1000:04}" / f"image_{number:09}.jpg").touch()


def write_shards(root: Path, entries: int) -> None:
    """Tar files of empty pictures, texts and JSON files."""
    fields = json.dumps({"caption": "a", "key": "0", "status": "success", "width": 256, "height": 256}).encode()
    contents = {"jpg": b"0", "txt": b"a", "json": fields}
    for first in range(0, entries // 3, PER_TAR):
        with tarfile.open(root / f"{first // PER_TAR:05}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(first, min(first + PER_TAR, entries // 3)):
                for ending, content in contents.items():
                    header = tarfile.TarInfo(f"{number:09}.{ending}")
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))


WRITERS: dict[str, Callable[[Path, int], None]] = {"list": write_list, "folder": write_folder, "shards": write_shards}


def private() -> int:
    """Anonymous memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(source: str, root: Path, folder: Path) -> dict[str, float]:
    """Open all splits as process 0 of a run does -> seconds and memory."""
    from jepa.disk.columns import IndexFolder
    from modalities.image.config import ImageConfig
    from modalities.image.modality import Image
    from modalities.video.config import VideoConfig
    from modalities.video.modality import Video

    modality: Any = Image(ImageConfig(source="webdataset" if source == "shards" else "folder", root=root))
    if source == "list":
        modality = Video(VideoConfig(source="csv", root=root))
    before, peak, done = private(), [private()], Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], private())

    watcher = Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    index = modality.index_folder = IndexFolder(folder, writes=True, least=1)
    samples = {split: modality.dataset(split) for split in SPLITS}
    index.close()
    took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    done.set()
    watcher.join()
    after = private()
    count = sum(map(len, samples.values()))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {**took, "before": before, "peak": max(peak[0], after), "after": after, "samples": count, "index": size}


def in_process(source: str, root: Path, folder: Path) -> dict[str, float]:
    """The same in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.startup", "--measure", source, str(root), str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(source: str, entries: int, scratch: Path | None) -> dict[str, Any]:
    """The first start and a later one on a data set of this size."""
    root = Path(tempfile.mkdtemp(prefix="startup-", dir=scratch))
    try:
        data, folder = root / "data", root / "index"
        data.mkdir()
        WRITERS[source](data, entries)
        time.sleep(2.5)  # times of change within two seconds of the listing prove nothing
        runs = {"first": in_process(source, data, folder), "later": in_process(source, data, folder)}
        return {"source": source, "entries": entries, **runs}
    finally:
        shutil.rmtree(root)


def page(record: dict[str, Any]) -> str:
    """The table of all measurements."""
    rows = []
    for found in record["found"]:
        first, later = found["first"], found["later"]
        seconds = [f"{run['seconds']:.2f} ({run['cpu_seconds']:.2f})" for run in (first, later)]
        memory = [f"{run['peak'] / 1e6:,.0f} ({run['before'] / 1e6:,.0f})" for run in (first, later)]
        row = [found["source"], f"{found['entries']:,}", f"{first['index'] / 1e6:,.1f}"]
        rows.append([*row, seconds[0], seconds[1], *memory])
    names = ("source", "entries", "index, MB", "first start, s (CPU)", "later start, s (CPU)")
    memory_names = ("first, private MB (before)", "later, private MB (before)")
    return (
        f"# Start-up by the size of the data\n\n{heading(record['source'])}\n\n{table([*names, *memory_names], rows)}"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--sources", nargs="+", choices=list(WRITERS), default=list(WRITERS))
    parser.add_argument("--scratch", type=Path, help="folder for the data (default: the temporary one)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, metavar=("SOURCE", "ROOT", "INDEX"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], *map(Path, options.measure[1:]))))
        return
    found = [compare(source, count, options.scratch) for source in options.sources for count in options.entries]
    record = {"source": provenance("benchmarks.startup"), "found": found}
    if options.json:
        write(options.json, record, page(record))
    else:
        print(page(record))


if __name__ == "__main__":
    main()
