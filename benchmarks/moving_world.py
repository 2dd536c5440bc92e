"""How well the kind of motion of a generated clip can be classified from one frame, and from the whole clip.

    python -m benchmarks.moving_world --out benchmarks/results [--train 4000 --test 1000 --epochs 15 --seeds 3]

Each classifier trains on clips of the train split and is scored on the test split after its last epoch; nothing is
selected by the score. One frame should give chance, 1/8; a clip should give far more.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks import provenance
from modalities.worlds.moving.dataset import MovingScenes, MovingScenesConfig
from modalities.worlds.moving.description import MOTIONS
from modalities.worlds.moving.render import render_clips
from modalities.worlds.moving.sampling import sample_clips
from modalities.worlds.moving.worker import clip_labels
from modalities.worlds.scenes.dataset import default_cache_dir

FRAMES, SIDE, CELLS = 16, 64, 16
Split = tuple[Tensor, Tensor]  # clips uint8 [N, F, 3, S, S], motions [N]


def load(samples: MovingScenes) -> Split:
    """Load a whole split into memory."""
    clips = [samples[index] for index in range(len(samples))]
    motions = torch.tensor([int(clip.labels["motion"]) for clip in clips])
    return torch.stack([clip.inputs for clip in clips]), motions


def frame(number: int, clips: Tensor) -> Tensor:
    """One frame as input of `frame_net`: [N, F, 3, S, S] -> uint8 [N, 3, S, S]."""
    return clips[:, number]


def whole(clips: Tensor) -> Tensor:
    """The clip as input of `clip_net`: [N, F, 3, S, S] -> uint8 [N, 3, F, S, S]."""
    return clips.transpose(1, 2)


def pixels(number: int, clips: Tensor) -> np.ndarray:
    """One frame at 16 x 16 pixels as a vector [N, 768]."""
    return F.adaptive_avg_pool2d(clips[:, number].float(), CELLS).flatten(1).numpy()


def motion_energy(clips: Tensor) -> np.ndarray:
    """Mean absolute difference of successive frames, over colours and time, in 16 x 16 cells: [N, 256]."""
    batches = [part.float().diff(dim=1).abs().mean(dim=(1, 2)) for part in clips.split(100)]
    return F.adaptive_avg_pool2d(torch.cat(batches), CELLS).flatten(1).numpy()


def linear(features: Callable[[Tensor], np.ndarray], train: Split, test: Split) -> float:
    """Accuracy of logistic regression on standardised features; deterministic."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features(train[0]), train[1].numpy())
    return float(model.score(features(test[0]), test[1].numpy()))


def frame_net() -> nn.Module:
    """A convolutional network for one frame, with some 30 thousand weights."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU()),
        nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, len(MOTIONS))),
    )


class Changes(nn.Module):
    """A clip at half size with 4 times its changes as channels: [N, 3, F, S, S] -> [N, 6, F - 1, S / 2, S / 2]."""

    def forward(self, clips: Tensor) -> Tensor:
        """Concatenate frames and changes; the first frame has no change and is dropped."""
        clips = F.avg_pool3d(clips, (1, 2, 2))
        return torch.cat([clips[:, :, 1:], 4 * clips.diff(dim=2)], dim=1)


def clip_net() -> nn.Module:
    """The same with a time axis, with some 90 thousand weights."""
    return nn.Sequential(
        Changes(),
        nn.Sequential(nn.Conv3d(6, 16, 3, 2, 1), nn.BatchNorm3d(16), nn.ReLU()),
        nn.Sequential(nn.Conv3d(16, 32, 3, 2, 1), nn.BatchNorm3d(32), nn.ReLU()),
        nn.Sequential(nn.Conv3d(32, 64, 3, (1, 2, 2), 1), nn.BatchNorm3d(64), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool3d((4, 2, 2)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, len(MOTIONS))),
    )


def train_and_score(
    net: Callable[[], nn.Module], view: Callable[[Tensor], Tensor], train: Split, test: Split, epochs: int, seed: int
) -> tuple[float, float]:
    """Train a network from scratch -> accuracy on the training and on the test split."""
    torch.manual_seed(seed)
    model, (inputs, motions), batch = net(), (view(train[0]), train[1]), 50
    steps = epochs * -(-len(motions) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(motions)).split(batch):
            loss = F.cross_entropy(model(_flipped(_scaled(inputs[chosen]))), motions[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _accuracy(model, inputs, motions), _accuracy(model, view(test[0]), test[1])


@torch.no_grad()
def _accuracy(model: nn.Module, inputs: Tensor, motions: Tensor) -> float:
    model.eval()
    predicted = torch.cat([model(_scaled(part)).argmax(dim=1) for part in inputs.split(100)])
    return float((predicted == motions).float().mean())


def _flipped(inputs: Tensor) -> Tensor:
    """Mirror at random, left-right and top-bottom; this keeps the kind of motion."""
    for axis in (-1, -2):
        mirrored = (torch.rand(len(inputs)) < 0.5).view(-1, *[1] * (inputs.dim() - 1))
        inputs = torch.where(mirrored, inputs.flip(axis), inputs)
    return inputs


def _scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 64 - 2


def measure(train: Split, test: Split, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of the table; networks are trained once per seed."""
    middle = FRAMES // 2
    linear_rows: list[tuple[str, Callable[[Tensor], np.ndarray]]] = [
        ("middle frame, logistic regression on 16 x 16 pixels", partial(pixels, middle)),
        ("first frame, logistic regression on 16 x 16 pixels", partial(pixels, 0)),
        ("motion energy, logistic regression on 16 x 16 cells", motion_energy),
    ]
    net_rows: list[tuple[str, Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = [
        ("middle frame, convolutional net", frame_net, partial(frame, middle)),
        ("first frame, convolutional net", frame_net, partial(frame, 0)),
        ("last frame, convolutional net", frame_net, partial(frame, FRAMES - 1)),
        ("whole clip, 3-D convolutional net", clip_net, whole),
    ]
    rows = [{"sees": name, "test": [linear(features, train, test)]} for name, features in linear_rows]
    for name, net, view in net_rows:
        scores = [train_and_score(net, view, train, test, options.epochs, seed) for seed in range(options.seeds)]
        rows.append({"sees": name, "train": [own for own, _ in scores], "test": [other for _, other in scores]})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The page of the result."""
    rows = [[row["sees"], _mean(row["test"]), _mean(row.get("train", []))] for row in report["rows"]]
    clips, each = report["test"], report["rendering_ms"]
    what = (
        f"{report['train']} training clips, {clips} test clips, {FRAMES} frames of {SIDE} x {SIDE} pixels; "
        f"{len(MOTIONS)} motions, chance {report['chance']:.3f} with a sampling error of "
        f"± {report['sampling_error']:.3f} on {clips} clips. Networks: {report['epochs']} epochs, {report['seeds']} "
        "seeds, mean ± standard deviation over seeds."
    )
    table = provenance.table(["input", "accuracy on test clips", "on training clips"], rows)
    rendering = f"Rendering a clip takes {each:.1f} ms of one core: {3 * each / 2:.0f} s for 3,000 clips on two cores."
    return f"{provenance.heading(report)} {what}\n\n{table}\n\n{rendering}"


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def rendering_ms() -> float:
    """CPU time of sampling, rendering and labelling a clip in this process, in milliseconds."""
    clips = 96
    for first in (0, clips):  # the first pass is a warm-up
        started = time.process_time()
        described = sample_clips(0, first + np.arange(clips), FRAMES)
        clip_labels(described, render_clips(described, SIDE))
    return 1000 * (time.process_time() - started) / clips


def main() -> None:
    """Write moving_world.md and moving_world.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for moving_world.md and moving_world.json")
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network")
    parser.add_argument("--cache-dir", type=Path, help="folder of rendered clips (default: that of runs)")
    parser.add_argument("--world", type=int, default=0, help="seed of the clips")
    options = parser.parse_args()
    config = MovingScenesConfig(seed=options.world, train=options.train, test=options.test)
    cache = options.cache_dir or default_cache_dir()
    train, test = (load(MovingScenes(config, split, FRAMES, SIDE, cache)) for split in ("train", "test"))
    chance = 1 / len(MOTIONS)
    report = {
        **provenance.provenance("benchmarks.moving_world"),
        **{name: getattr(options, name) for name in ("train", "test", "epochs", "seeds", "world")},
        "chance": chance,
        "sampling_error": (chance * (1 - chance) / options.test) ** 0.5,
        "rendering_ms": rendering_ms(),
        "rows": measure(train, test, options),
    }
    provenance.write(options.out / "moving_world.json", report, markdown(report))


if __name__ == "__main__":
    main()
