"""How much of the embedded world's classes can be learned: floors without training, and the ceiling of supervision.

    python -m benchmarks.world --json benchmarks/results/world.json [--labels 20000 5000 --images 96000 --seeds 1]

Floors: raw pixels, statistics of colours, and the untrained encoder. Ceiling: the encoder of configs/image.yaml,
trained on labels (benchmarks/supervised.py). Frozen features are probed as in the evaluation, with its number of
labels. A .md with the table is written beside the JSON; the same command resumes.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from benchmarks import provenance
from benchmarks.supervised import Classifier, class_task, head_accuracy, train
from jepa.checkpoint import Checkpoint, latest
from jepa.config.recipes import read_recipe
from jepa.distributed import join
from jepa.errors import INTERRUPTED, exit_status
from jepa.evaluate.feature_table import FeatureTable
from jepa.evaluate.features import Extractor, Features, TokenBudget
from jepa.evaluate.labels import LOW_SHOT
from jepa.evaluate.probes.attentive import ProbeTraining
from jepa.evaluate.reading import evaluated_indices, evaluation_splits, sample_limits
from jepa.evaluate.splits import Splits
from jepa.evaluate.tasks import measure
from jepa.launch import resolve
from jepa.modality import Split
from jepa.training.config import Config
from modalities.image.config import ImageConfig
from modalities.image.modality import Image

PROBES = {"linear": "linear", "k-NN": "knn", f"{LOW_SHOT} labels a class": f"low_shot_{LOW_SHOT}"}
_LEVELS = 9  # quantiles of each colour
Scores = dict[str, dict[str, float]]  # by column of the evaluation, then by title of the probe


class WithColours(Image):
    """Images with one more baseline: means, deviations and quantiles of the three colours."""

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        """[3, H, W] -> pixels, and [33] statistics of colours."""
        channels = view.flatten(1)  # [3, H W]
        quantiles = channels.quantile(torch.linspace(0, 1, _LEVELS), dim=1).T  # [3, levels]
        statistics = torch.cat([channels.mean(dim=1), channels.std(dim=1), quantiles.flatten()])
        return {**super().baselines(view), "colours": statistics}


def settings(options: argparse.Namespace, labels: int, seed: int) -> tuple[Config[ImageConfig, Any], WithColours]:
    """The config of a supervised run and its modality."""
    overrides = ["data.source=scenes", *options.overrides, f"evaluate.train_samples={labels}", f"seed={seed}"]
    recipe = read_recipe("image")
    batch = resolve("image", recipe, overrides)[0].optim.batch_size
    overrides += [f"steps={options.images // batch}", f"run_dir={options.work / f'{labels}-{seed}'}"]
    config, modality = resolve("image", recipe, overrides)
    return config, WithColours(modality.config)


def supervised(options: argparse.Namespace, labels: int, seed: int) -> dict[str, Any] | None:
    """Train on labels and score the classifier and its frozen encoder; None if a signal stopped the training."""
    config, modality = settings(options, labels, seed)
    world, stored, started = join(config.compute.device), config.run_dir / "ceiling.json", time.process_time()
    if stored.exists():
        found: dict[str, Any] = json.loads(stored.read_text())
        return found
    if not train(config, modality, world):
        return None
    found = {"labels": labels, "seed": seed, "images": config.steps * config.optim.batch_size}
    found |= {"cpu_seconds": time.process_time() - started, "classifier": head_accuracy(config, modality, world.device)}
    found["scores"] = frozen_scores(config, modality)
    stored.write_text(json.dumps(found) + "\n")
    print(found, file=sys.stderr, flush=True)
    return found


def frozen_scores(config: Config[ImageConfig, Any], modality: WithColours) -> Scores:
    """Scores of frozen features on the scored split: the trained encoder, the untrained one, and the baselines."""
    device = join(config.compute.device).device
    trained = Classifier(config.model, modality).to(device)
    trained.load_state_dict(Checkpoint.load(latest(config.run_dir), device).model)
    torch.manual_seed(config.seed)
    encoders = {"jepa": trained.context_encoder, "random_init": modality.encoder(config.model).to(device)}
    protocol, task = resolve("image", {}, ["data.source=scenes"])[0].evaluate, class_task(modality)
    extractor = Extractor(modality, encoders, [task], protocol.batch_size, config.compute, lambda _: None)
    samples, limits = evaluation_splits(modality, config.evaluate), sample_limits(modality, protocol)

    def features(split: Split) -> Features:
        indices = evaluated_indices(len(samples[split]), limits[split], split)
        return extractor.extract(samples[split], indices, TokenBudget())

    splits = Splits(features("train"), features("validation"), features("test"))
    training = ProbeTraining(protocol.attentive_steps, device, config.compute.uses_bf16(device.type), True, (1,), (1,))
    table = FeatureTable(splits, protocol.low_shot_draws, training)
    scores: Scores = {column: {} for column in splits.test.columns}
    for title, probe in PROBES.items():
        row = measure(task, probe, table, lambda: None)
        for column in scores:
            scores[column][title] = row[column]
    return scores


def rows(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The lines of the table: floors of the first run with most labels, then the ceilings."""
    floors = {"raw pixels": "raw_input", "statistics of colours": "colours", "untrained encoder": "random_init"}
    most = [run for run in runs if run["labels"] == runs[0]["labels"]]
    lines = [
        [name, *(_mean([run["scores"][column][title] for run in most]) for title in PROBES), "-", "-"]
        for name, column in floors.items()
    ]
    for labels in dict.fromkeys(run["labels"] for run in runs):
        same = [run for run in runs if run["labels"] == labels]
        frozen = [_mean([run["scores"]["jepa"][title] for run in same]) for title in PROBES]
        own, cost = _mean([run["classifier"] for run in same]), fmean(run["cpu_seconds"] for run in same)
        lines.append([f"supervised, {labels:,} labels", *frozen, own, f"{cost:.0f}"])
    return lines


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(set(values)) > 1 else "")


def markdown(report: Mapping[str, Any]) -> str:
    """The page of the result."""
    runs = report["runs"]
    what = (
        f"Ten classes, chance 0.100. Each supervised run saw {runs[0]['images']:,} images; {report['seeds']} seed(s), "
        "mean ± standard deviation over seeds where they differ. Frozen features are probed with at most 5,000 labels."
    )
    headings = ["features", *PROBES, "its own classifier", "CPU seconds of training"]
    return f"{provenance.heading(report)} {what}\n\n{provenance.table(headings, rows(runs))}"


def measured(options: argparse.Namespace) -> int:
    """Make all missing runs and write the result -> exit status."""
    runs = []
    for labels in options.labels:
        for seed in range(options.seeds):
            if (run := supervised(options, labels, seed)) is None:
                return INTERRUPTED
            runs.append(run)
    report = {**provenance.provenance("benchmarks.world"), "seeds": options.seeds, "runs": runs}
    provenance.write(options.json, report, markdown(report))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    parser.add_argument("--labels", type=int, nargs="+", default=[20_000, 5_000], help="labelled images of a run")
    parser.add_argument("--images", type=int, default=96_000, help="images that a run sees")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each number of labels")
    parser.add_argument("--work", type=Path, default=Path("runs/world"), help="folder of the runs")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings over the recipe of images")
    options = parser.parse_intermixed_args(argv)
    return exit_status(lambda: measured(options))


if __name__ == "__main__":
    sys.exit(main())
