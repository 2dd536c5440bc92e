"""Crops, flips and colours by workers or on the device: python -m benchmarks.augment --json FILE.json [--device cuda]

Images in memory, stored at the side of their crops, in batches of 64. Workers: CPU time of one thread for a view, from
the decoded image until it lies in a batch. Device: time to make network inputs of the batch, by the clock, on the
device of `--device`, without the copy to it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from benchmarks import provenance
from jepa.data import seeded
from jepa.data.collate import collated
from jepa.modality import Sample, Split
from modalities.image import Image, ImageConfig
from modalities.image.colour import ColourConfig
from modalities.image.config import AugmentPlace

_BATCH = 64
_SIDES = (32, 64)


class InMemory(Image):
    """Images of noise, with innermost channels in memory, like decoded ones."""

    def dataset(self, split: Split) -> list[Sample]:
        shape = (self.config.size[0], self.config.size[1], 3)
        return [Sample(torch.randint(256, shape, dtype=torch.uint8).permute(2, 0, 1)) for _ in range(_BATCH)]


def views(side: int, place: AugmentPlace, coloured: bool) -> tuple[Callable[[], Any], Callable[[Any], Tensor]]:
    """What makes a batch of loader views, and network inputs of it."""
    colour = ColourConfig() if coloured else None
    settings: dict[str, Any] = {"image_size": side, "patch_size": side // 8, "flip": True, "colour": colour}
    modality = InMemory(ImageConfig(source="folder", root=Path("unused"), augment_on=place, **settings))
    images = [sample.inputs for sample in modality.dataset("train")]

    def batch() -> Any:
        return collated([modality.loader_view(image, seeded("view", 0, n)) for n, image in enumerate(images)])

    return batch, modality.to_network


def microseconds(call: Callable[[], object], clock: Callable[[], float], seconds: float) -> float:
    """Time a view, over as many batches as take `seconds`."""
    count, started = 0, clock()
    while clock() - started < seconds:
        call()
        count += _BATCH
    return 1e6 * (clock() - started) / count


def measure(sides: tuple[int, ...], device: torch.device, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A record for each side, with and without colours: microseconds a view in each place, by round."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    records = []
    for side in sides:
        for coloured in (False, True):
            record: dict[str, Any] = {"side": side, "coloured": coloured}
            ways = {place: views(side, place, coloured) for place in get_args(AugmentPlace)}
            for number in range(-1, rounds):  # the first round warms up
                for place, (batch, to_network) in ways.items():
                    sent = tree_map(lambda leaf: leaf.to(device), batch())
                    worker = microseconds(batch, time.process_time, seconds)
                    made = microseconds(lambda: to_network(sent), now, seconds)  # noqa: B023
                    if number >= 0:
                        record.setdefault(place, []).append({"worker": worker, "device": made})
            records.append(record)
    return records


def page(records: list[dict[str, Any]], device: torch.device) -> str:
    """A row for each record: median and range of the workers' time, median of the device's."""
    rows = []
    for record in records:
        cells = [f"{record['side']} px{', colours' if record['coloured'] else ''}"]
        for place in get_args(AugmentPlace):
            worker = sorted(one["worker"] for one in record[place])
            made = median(one["device"] for one in record[place])
            cells += [f"{median(worker):.0f} ({worker[0]:.0f} to {worker[-1]:.0f})", f"{made:.0f}"]
        ratios = [a["worker"] / b["worker"] for a, b in zip(record["workers"], record["device"], strict=True)]
        rows.append([*cells, f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"])
    headings = ["crops and flips of", "workers: CPU µs a view", f"then on the {device.type}"]
    headings += ["`augment_on=device`: CPU µs a view", f"then on the {device.type}", "views a second and worker, times"]
    return f"Medians and range of {len(records[0]['device'])} rounds.\n\n{provenance.table(headings, rows)}"


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="32 px, 2 rounds, brief")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides, rounds, seconds = (_SIDES[:1], 2, 0.02) if options.quick else (_SIDES, options.rounds, 0.5)
    records = measure(sides, options.device, rounds, seconds)
    source = provenance.provenance("benchmarks.augment")
    text = f"{provenance.heading(source)}\n\n{page(records, options.device)}"
    provenance.write(options.json, {**source, "device": str(options.device), "records": records}, text)


if __name__ == "__main__":
    main()
