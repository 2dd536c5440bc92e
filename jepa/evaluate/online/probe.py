"""The probe during training: k-NN accuracy on the same samples every time, shared among all processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import default_collate

from jepa.checkpoint.file import CheckpointError, best, read_facts
from jepa.config import plain
from jepa.console import CONSOLE, shown, warn_once
from jepa.distributed import World, is_sharded
from jepa.encoder import TokenEncoder
from jepa.evaluate.features import pooled_grid, samples_at_once
from jepa.evaluate.labels import UnmeasurableError, check_labels
from jepa.evaluate.online.samples import PROBED, Views, class_task, obstacle, probed_indices, share_of
from jepa.evaluate.probes.linear import knn_accuracy
from jepa.evaluate.splits import Examples, Splits
from jepa.evaluate.tasks import with_classes
from jepa.modality import Modality, Split, Task
from jepa.training.config import Config
from jepa.training.log import PROBE, Stopwatch, read_metrics
from jepa.training.numerics import measuring

NEIGHBOURS = 20  # that vote on a sample


class OnlineProbe:
    """Scores the encoder that the run evaluates, and knows which checkpoint is the best so far.

    Every process embeds its share of the samples; process 0 compares them. Nothing changes the training: modes and
    random state are afterwards as before.
    """

    def __init__(
        self, config: Config[Any, Any], modality: Modality[Any], model: nn.Module, world: World, first_step: int
    ) -> None:
        self.config, self.modality, self.world = config, modality, world
        self.encoder: TokenEncoder = getattr(model, config.evaluated_encoder)
        self.is_sharded = is_sharded(model)
        self.best, self.best_step = -math.inf, 0
        self.is_on = not self._obstacle()
        if self.is_on:
            with world.error_barrier():
                self._open(first_step)

    def scores(self, done: int, clock: Stopwatch) -> dict[str, float]:
        """The accuracy if a probe is due after so many steps, otherwise nothing; every process must call."""
        if not (self.is_on and self.config.probe.is_due(done, self.config.steps)):
            return {}
        with clock.paused():
            score, is_best = self._scored()
        if score is not None and is_best:
            self.best, self.best_step = score, done
        if self.world.is_main and done == self.config.steps and 0 < self.best_step < done:
            path = shown(best(self.config.run_dir))
            CONSOLE.print(f"the best probe was at step {self.best_step}: {100 * self.best:.1f} %, checkpoint: {path}")
        return {} if score is None else {PROBE: score}

    def _scored(self) -> tuple[float | None, bool]:
        """The accuracy, None if it cannot be measured, and whether it is the best so far; the same in all processes."""
        with measuring(self.encoder, self.world.device):
            train, validation = (self._embedded(split) for split in PROBED)
        found: list[Any] = [None, False]
        with self.world.error_barrier():
            if self.world.is_main:
                score = self._accuracy(train, validation)
                found = [score, score is not None and score > self.best]
        if self.world.size > 1:
            dist.broadcast_object_list(found, src=0, group=self.world.control)
        return found[0], found[1]

    def is_best(self, done: int) -> bool:
        """Whether the best probe so far was after so many steps."""
        return done == self.best_step

    def _obstacle(self) -> bool:
        with self.world.error_barrier():
            found = bool(obstacle(self.config, self.modality))
        return self.world.any(found)

    def _open(self, first_step: int) -> None:
        task = class_task(self.modality)
        assert task is not None
        self.task, self.views = task, Views(self.modality, task, self.config.compute.cache_mb * 2**20)
        self.shares = {
            split: share_of(probed_indices(self.config, self.modality, task, split), self.world) for split in PROBED
        }
        if self.world.is_main and first_step:
            self.best, self.best_step = best_before(self.config, first_step)

    def _embedded(self, split: Split) -> "_Embedded":
        """Vectors and labels of all processes on process 0, in the order of the samples; elsewhere of this process."""
        own, share = _Embedded(), self.shares[split]
        at_once = samples_at_once(
            self.modality, self.config.evaluate.batch_size, on_gpu=self.world.device.type == "cuda"
        )
        # Every process takes the same number of turns: all must help to gather shards.
        for first in range(0, share.longest, at_once):
            with self.world.error_barrier():
                items, bad = self.views.read(split, share.indices[first : first + at_once])
                views = [view for view, _ in items] or ([self.modality.example_view()] if self.is_sharded else [])
            own.bad.extend(bad)
            if views:
                own.vectors.append(self._encoded(default_collate(views))[: len(items)])
                own.labels.extend(label for _, label in items)
        if self.world.size == 1:
            return own
        parts: list[Any] = [None] * self.world.size
        dist.gather_object(own, parts if self.world.is_main else None, dst=0, group=self.world.control)
        return _Embedded.joined(parts) if self.world.is_main else own

    def _encoded(self, views: Any) -> Tensor:
        kind = self.world.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.config.compute.uses_bf16(kind)):
            return pooled_grid(self.modality, self.encoder, views).float().cpu()

    def _accuracy(self, train: "_Embedded", validation: "_Embedded") -> float | None:
        """The score on process 0; None, with a warning, if there are no labels."""
        if bad := [*train.bad, *validation.bad]:
            count = f"{len(bad):,} sample{'s' if len(bad) > 1 else ''}"
            warn_once(f"the probe leaves out {count} that cannot be read, such as {': '.join(bad[0])}")
        try:
            voting, classified = train.examples(self.task, "train"), validation.examples(self.task, "validation")
            examples = Splits(voting, classified, classified)
            check_labels(self.task, examples.map(lambda split: split.labels))
        except UnmeasurableError as error:
            warn_once(f"no probe: {error}")
            return None
        examples, classes = with_classes(self.task, examples)
        return knn_accuracy(examples.train, examples.validation, len(classes), NEIGHBOURS)


@dataclass
class _Embedded:
    """Vectors [n, D] in parts, labels, and source and reason of unreadable samples."""

    vectors: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence["_Embedded"]) -> "_Embedded":
        """Those of all processes."""
        vectors, labels, bad = ([item for part in parts for item in getattr(part, name)] for name in vars(parts[0]))
        return cls(vectors, labels, bad)

    def examples(self, task: Task, split: Split) -> Examples:
        """The samples with a label; raises UnmeasurableError if there are none."""
        known = torch.stack(self.labels).isfinite() if self.labels else torch.zeros(0, dtype=torch.bool)
        if not known.any():
            raise UnmeasurableError(f"no {split} sample has a label '{task.label}'")
        return Examples(torch.cat(self.vectors)[known], torch.stack(self.labels)[known])


def best_before(config: Config[Any, Any], step: int) -> tuple[float, int]:
    """Score and step of the best checkpoint of a run that resumes from a step; -inf and 0 if the score is unknown.

    It is unknown if that checkpoint is of a later step, which the run will reach again, or if it was scored on other
    samples or with the other encoder.
    """
    path = best(config.run_dir)
    if not path.exists():
        return -math.inf, 0
    try:
        saved = read_facts(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Remove it and start the run again; the next best probe writes a new one"
        ) from error
    scores = {line["step"]: line[PROBE] for line in read_metrics(config.run_dir) if PROBE in line}
    known = saved.step <= step and saved.step in scores and _protocol(saved.config) == _protocol(plain(config))
    return (float(scores[saved.step]), saved.step) if known else (-math.inf, 0)


def _protocol(config: dict[str, Any]) -> list[Any]:
    """What makes scores comparable."""
    return [{**config.get("probe", {}), "every": None}, config.get("evaluate", {}).get("encoder")]
