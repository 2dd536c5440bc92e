"""Train the same encoder from scratch on the labels that train the probes: a baseline without pretraining.

    python -m benchmarks.supervised --modality image --run-dir DIR [--config FILE] [section.key=value ...]

Command line, config, run directory, batches, views, schedules and resuming are those of `jepa.launch`. The checkpoint
holds the encoder like that of a pretraining run, so the same frozen probes evaluate it; the accuracy of the classifier
itself is written to head.json.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError, plain
from jepa.config.recipes import read_recipe
from jepa.data import BadFiles, Order, SampleCache, TrainingBatches, open_split, training_batches
from jepa.distributed import World, join, stop_on_signals
from jepa.encoder import TokenEncoder
from jepa.errors import INTERRUPTED, exit_status
from jepa.evaluate.features import Column, Extractor, TokenBudget
from jepa.evaluate.probes.linear import accuracy
from jepa.evaluate.reading import SampleSubset, evaluated_indices, evaluation_splits, sample_limits
from jepa.evaluate.run import evaluate_run
from jepa.launch import resolve
from jepa.masking import Masks
from jepa.modality import Modality, Sample, Samples, Task
from jepa.model_config import ModelConfig
from jepa.optim import build_optimizer, clip_gradient, set_schedule
from jepa.probe.protocol import EvaluateConfig
from jepa.training.config import Config
from jepa.training.finite import FiniteCheck
from jepa.training.log import RunLog, Stopwatch
from jepa.training.run_dir import prepare_run_dir
from jepa.training.saver import Saver


class Classifier(nn.Module):
    """The encoder, the mean over its tokens, and a linear layer."""

    def __init__(self, config: ModelConfig, modality: Modality[Any]) -> None:
        super().__init__()
        self.context_encoder: TokenEncoder = modality.encoder(config)
        self.target_encoder = self.context_encoder  # evaluation may ask for either name
        self.head = nn.Linear(self.context_encoder.dim, len(class_task(modality).classes))

    def forward(self, inputs: Any) -> Tensor:
        """Inputs [B, ...] -> scores [B, K] of the classes."""
        scores: Tensor = self.head(self.context_encoder(inputs).mean(dim=1))
        return scores

    def fsdp_units(self) -> Iterable[nn.Module]:
        """The blocks of the encoder, whose matrices Muon updates."""
        return self.context_encoder.fsdp_units()


class Labelled(Modality[Any]):
    """Another modality whose training views come with their class, as (view, int)."""

    def __init__(self, modality: Modality[Any]) -> None:
        super().__init__(modality.config)
        self.modality, self.grid = modality, modality.grid
        self.label = class_task(modality).label

    def dataset(self, split: Any) -> Samples:
        """Stored samples of a split, with their labels."""
        return self.modality.dataset(split)

    def embedding(self, dim: int) -> nn.Module:
        """The embedding of the other modality."""
        return self.modality.embedding(dim)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """No masks: the classifier sees all tokens."""
        return []

    def training_view(self, inputs: tuple[Any, int], generator: Generator) -> tuple[Any, int]:
        """The view of the other modality and the class."""
        stored, label = inputs
        return self.modality.training_view(stored, generator), label


class LabelledSamples:
    """Samples whose inputs are (stored inputs, class)."""

    def __init__(self, samples: Samples, label: str) -> None:
        self.samples, self.label = samples, label

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.samples[index]
        return Sample((sample.inputs, int(sample.labels[self.label])))


def class_task(modality: Modality[Any]) -> Task:
    """The classification task; raises ConfigError if the data has no classes."""
    for task in modality.tasks:
        if task.kind == "class":
            return task
    raise ConfigError("data: there are no classes to learn; a folder needs two or more folders of images, one a class")


def probe_training_samples(modality: Modality[Any], config: EvaluateConfig) -> Samples:
    """The labelled samples that train the probes of the evaluation."""
    train = evaluation_splits(modality, config)["train"]
    return SampleSubset(train, evaluated_indices(len(train), sample_limits(modality, config)["train"], "train"))


def scored_samples(modality: Modality[Any], config: EvaluateConfig) -> Samples:
    """The samples that the evaluation reports."""
    samples = evaluation_splits(modality, config)["test"]
    return SampleSubset(samples, evaluated_indices(len(samples), config.test_samples, "test"))


def train(config: Config[Any, Any], modality: Modality[Any], world: World) -> bool:
    """Learn the classes until `config.steps`, from the last checkpoint if there is one -> whether it finished.

    One process. Raises ConfigError and DataError as pretraining does.
    """
    samples = LabelledSamples(probe_training_samples(modality, config.evaluate), class_task(modality).label)
    torch.manual_seed(config.seed)  # the encoder is drawn first: it starts from the weights of the pretraining runs
    model = Classifier(config.model, modality).to(world.device)
    prepare_run_dir(config)
    optimizer = build_optimizer(model, config.optim)
    saver = Saver(config.run_dir, plain(config), model, optimizer, world)
    first_step, seconds_before = saver.restore(latest(config.run_dir) if latest(config.run_dir).exists() else None)
    if first_step == config.steps:
        return True
    bad_files = BadFiles(config.run_dir / "bad_files.txt", len(samples), config.data.max_bad_fraction)
    order = Order(seed=config.seed, batch_size=config.optim.batch_size)
    cached = SampleCache(samples, config.compute.cache_mb)
    training_set = TrainingBatches(Labelled(modality), cached, order, config.data.max_bad_fraction)
    steps, loaders = range(first_step, config.steps), config.compute.loaders(world.device)
    loading = training_batches(training_set, steps, loaders, world)
    run_log = RunLog(config.run_dir, first_step, config.steps, enabled=True)
    with stop_on_signals() as stop_request, saver.finishing(), run_log as log, loading as batches:
        log.say(f"resumed from step {first_step}" if first_step else "fresh run")
        clock, finite = Stopwatch(seconds_before), FiniteCheck(saver.last, world)
        for step in steps:
            rate = set_schedule(optimizer, step, config.steps, config.optim)
            batch = next(batches).to(world.device)
            bad_files.add(batch.bad)
            views, labels = batch.views[0]  # [B, ...], int64 [B]
            with torch.autocast(world.device.type, torch.bfloat16, enabled=config.compute.uses_bf16(world.device.type)):
                scores = model(views)  # [B, K]
            loss = F.cross_entropy(scores.float(), labels)
            loss.backward()
            gradient_norm = clip_gradient(optimizer, config.optim.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            finite.add(step, loss.detach(), gradient_norm)

            done = step + 1
            stopping = done == config.steps or bool(stop_request)
            log.advance(done)
            if done % config.log_every == 0 or done % config.checkpoint_every == 0 or stopping:
                finite.check()
            if done % config.log_every == 0 or stopping:
                speed = clock.lap(done - first_step) * config.optim.batch_size
                values = {"loss": float(loss.detach()), "learning_rate": rate, "samples_per_second": speed}
                log.write(done, clock, values)
            if done % config.checkpoint_every == 0 or stopping:
                saver.save(done, clock.total())
            if stopping:
                break
        saver.wait()
        return done == config.steps


def head_accuracy(config: Config[Any, Any], modality: Modality[Any], device: torch.device) -> float:
    """Accuracy of the classifier of a finished run on the scored samples, 0..1."""
    model = Classifier(config.model, modality).to(device)
    model.load_state_dict(Checkpoint.load(latest(config.run_dir), device).model)
    task = class_task(modality)
    encoders: dict[Column, TokenEncoder] = {"jepa": model.context_encoder}
    extractor = Extractor(modality, encoders, [task], config.evaluate.batch_size, config.compute, lambda _: None)
    scored = scored_samples(modality, config.evaluate)
    features = extractor.extract(scored, range(len(scored)), TokenBudget())
    with torch.inference_mode():
        scores = model.head(features.last["jepa"].to(device)).cpu()  # [n, K]
    return accuracy(scores, features.labels[task.label].long())


def run_flops(config: Config[Any, Any], modality: Modality[Any]) -> float:
    """Floating-point operations of a whole run; a multiply-add counts as two."""
    view = modality.evaluation_view(open_split(modality, "train")[0].inputs)
    with torch.device("meta"):
        model = Classifier(config.model, modality)
        inputs, label = torch.empty(1, *view.shape, dtype=view.dtype), torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(inputs), label).backward()
    return float(counter.get_total_flops()) * config.optim.batch_size * config.steps


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure and evaluate as the command line says -> exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.supervised", description="Train an encoder by labels.")
    parser.add_argument("--modality", default="image")
    parser.add_argument("--config", default="image", help="recipe by name or path of a YAML file (default: image)")
    parser.add_argument("--run-dir", required=True, help="run directory")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings over the recipe")
    return exit_status(lambda: _launch(parser.parse_intermixed_args(argv)))


def _launch(arguments: argparse.Namespace) -> int:
    overrides = [*arguments.overrides, f"run_dir={arguments.run_dir}"]
    config, modality = resolve(arguments.modality, read_recipe(arguments.config), overrides)
    world = join(config.compute.device)
    if not train(config, modality, world):
        return INTERRUPTED
    if config.evaluate.enabled:
        head = {"accuracy": head_accuracy(config, modality, world.device)}
        (config.run_dir / "head.json").write_text(json.dumps(head) + "\n")
        evaluate_run(config.run_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
