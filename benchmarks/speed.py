"""Speed of the small recipe against a straightforward implementation of the same method, measured in turn.

    python -m benchmarks.speed --data FOLDER --json benchmarks/results/speed.json [section.key=value ...]

Straightforward: fp32, torchvision's transforms in a DataLoader, with or without a worker (the faster one counts), masks
drawn in the loop, AdamW and moving average one parameter at a time. Networks, masks, targets, schedules and batch size
are the same; the losses at the end show whether both learn the same. Ours: as a user starts it, and with
compute.compile=true.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks import provenance
from jepa.config.recipes import read_recipe
from jepa.data import seeded
from jepa.launch import resolve
from jepa.loss import added_loss, prediction_loss
from jepa.model import JEPA
from jepa.optim import set_schedule
from jepa.training.config import Config
from jepa.training.log import read_metrics

_LOGGED = 20  # steps between logged losses, and of warm-up


def straightforward(config: Config[Any, Any], modality: Any, workers: int) -> dict[str, float]:
    """The straightforward implementation -> samples per second, mean loss of the last quarter."""
    torch.manual_seed(config.seed)
    model = JEPA(config.model, modality, config.target_kinds)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.optim.peak_lr, betas=config.optim.betas)
    for group in optimizer.param_groups:
        group.update(decayed=True, factor=1.0)  # as `set_schedule` expects
    batches = _images(config, workers)
    losses: list[float] = []
    started = 0.0
    for step in range(config.steps):
        if step == _LOGGED:
            started = time.perf_counter()
        weights = config.stage(step).weights
        set_schedule(optimizer, step, config.steps, config.optim)
        views = next(batches)
        masks = modality.sample_masks(config.optim.batch_size, seeded("masks", config.seed, step))
        output = model(views, masks, tuple(weights))
        loss = prediction_loss(output.predictions, config.loss, weights)
        total = loss + added_loss(output, config.loss, config.model.contrast, seeded("slices", config.seed, step))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        momentum = config.target_update(step).after
        with torch.no_grad():
            pairs = zip(model.target_encoder.parameters(), model.context_encoder.parameters(), strict=True)
            for target, context in pairs:
                target.mul_(momentum).add_(context, alpha=1 - momentum)
        if (step + 1) % _LOGGED == 0 and step + 1 > 3 * config.steps // 4:
            losses.append(float(loss.detach()))
    seconds = time.perf_counter() - started
    speed = (config.steps - _LOGGED) * config.optim.batch_size / seconds
    return {"samples_per_second": speed, "loss": fmean(losses)}


def _images(config: Config[Any, Any], workers: int) -> Iterator[list[Tensor]]:
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(config.data.size, config.data.crop_scale, config.data.crop_aspect),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    folder = ImageFolder(
        Path(config.data.root) / "train", lambda image: [crop(image) for _ in range(config.data.views)]
    )
    loader = DataLoader(folder, config.optim.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    while True:
        for images, _ in loader:
            yield images


def ours(overrides: list[str], config: Config[Any, Any], run_dir: Path) -> dict[str, float]:
    """A run as a user starts it -> samples per second, mean loss of the last quarter."""
    command = [sys.executable, "-m", "jepa.launch", "--modality", "image", "--run-dir", str(run_dir)]
    settings = [*overrides, f"log_every={_LOGGED}", "evaluate.enabled=false"]
    subprocess.run([*command, *settings], check=True, capture_output=True)
    lines = read_metrics(run_dir)
    steps, seconds = (lines[-1][key] - lines[0][key] for key in ("step", "seconds"))
    losses = [line["loss"] for line in lines if line["step"] > 3 * config.steps // 4]
    return {"samples_per_second": steps * config.optim.batch_size / seconds, "loss": fmean(losses)}


def _round(
    overrides: list[str], config: Config[Any, Any], modality: Any, folders: tuple[Path, Path]
) -> dict[str, dict[str, float]]:
    """Each of the four once, in turn."""
    return {
        "straightforward, no worker": straightforward(config, modality, 0),
        "ours": ours(overrides, config, folders[0]),
        "straightforward, a worker": straightforward(config, modality, 1),
        "ours, compiled": ours([*overrides, "compute.compile=true"], config, folders[1]),
    }


def main() -> None:
    """Time both in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images by class in train/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    # The straightforward loop has AdamW and moving averages alone.
    overrides = ["data.source=folder", f"data.root={arguments.data}", "steps=400", "optim.optimizer=adamw"]
    overrides += ["stages=[{predict: {pixels: 1, latent: 1}, teacher: {kind: ema, start: 0.996, end: 1.0}}]"]
    overrides += arguments.overrides
    config, modality = resolve("image", read_recipe("image"), overrides)
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            folders = Path(folder) / str(turn), Path(folder) / f"{turn}-compiled"
            rounds.append(_round(overrides, config, modality, folders))
    source = provenance.provenance("benchmarks.speed")
    page = f"{provenance.heading(source)}\n\n{_markdown(rounds)}"
    provenance.write(arguments.json, {**source, "rounds": rounds}, page)


def _markdown(rounds: list[dict[str, dict[str, float]]]) -> str:
    names = list(rounds[0])
    rows = [
        [str(number), *(f"{turn[name]['samples_per_second']:.0f} ({turn[name]['loss']:.3f})" for name in names)]
        for number, turn in enumerate(rounds, start=1)
    ]
    lines = [provenance.table(["round", *(f"{name}, samples/s" for name in names)], rows)]
    lines += ["", "In brackets: the loss, mean of the last quarter."]
    for name in ("ours", "ours, compiled"):
        ratios = [_ratio(turn, name) for turn in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"\n{name}: {median(ratios):.2f} times the faster straightforward one (median; {spread}).")
    return "\n".join(lines)


def _ratio(turn: dict[str, dict[str, float]], name: str) -> float:
    plain = [timed["samples_per_second"] for other, timed in turn.items() if other.startswith("straightforward")]
    return turn[name]["samples_per_second"] / max(plain)


if __name__ == "__main__":
    main()
