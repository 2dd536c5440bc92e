"""How a representation is measured: the `evaluate` section of a config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from jepa.config import ConfigError
from jepa.config.imports import imported


@dataclass(frozen=True, kw_only=True)
class FunctionTask:
    """An evaluation task of one's own, a row `label/package.module:function` of the results.

    function: called with jepa.evaluate.splits.Splits of Examples, i.e. features [n, F] and labels [n] of the samples
    that teach (`train`), choose settings (`validation`) and are reported on (`test`); gives a number. It is called for
    the trained encoder, the untrained one, every floor and shuffled features (chance) alike. label: of the samples; the
    modality need not have a task for it.
    """

    function: str
    label: str
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.label}/{self.function}"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation on frozen features after training.

    encoder: whose features; the paper's choice is the target encoder. Up to `train_samples` labelled samples teach the
    probes, up to `validation_samples` choose their settings, up to `test_samples` give the reported number; probes are
    not taught again on the validation samples. scored_split: `validation` keeps the test split unread while a recipe is
    searched: the validation split gives the reported number, training samples that teach nothing choose the settings.
    map_tokens: tokens of each split that serve for tasks of kind `map`.

    attentive: numbers of blocks of the attentive probes that are trained, [1, 4] say; null for those that a task
    asks for. Up to `attentive_samples` of each split serve for them, of which up to `attentive_tokens` tokens a view
    stay in memory in bf16, means over neighbouring ones where there are more; they are taught for `attentive_steps`
    steps of 64 samples. One block costs seconds, each further one a hundred times as much.
    forecast_samples: of the training and of the scored split, for the prediction of the later part of an input from
    its earlier one, cut at the share `forecast_cut`; 0 for none. Only where a modality has an axis for it.
    gallery: where a modality has two streams that match, one is searched for among that many samples at once, galleries
    following one another; null for all that are scored. gain_samples: on how many it is measured how much the second
    stream helps to predict the first; 0 for none. functions: further tasks, see FunctionTask.
    report: write report.html at the end of a run.
    """

    enabled: bool = True
    report: bool = True
    encoder: Literal["target_encoder", "context_encoder"] = "target_encoder"
    scored_split: Literal["validation", "test"] = "test"
    train_samples: PositiveInt = 5_000
    validation_samples: PositiveInt = 1_000
    test_samples: PositiveInt = 2_000
    low_shot_draws: PositiveInt = 5
    map_tokens: PositiveInt = 32_768
    attentive: tuple[PositiveInt, ...] | None = None
    attentive_samples: PositiveInt = 2_000
    attentive_tokens: PositiveInt = 512
    attentive_steps: PositiveInt = 400
    forecast_samples: NonNegativeInt = 512
    forecast_cut: Annotated[float, Field(gt=0, lt=1)] = 0.5
    gallery: PositiveInt | None = None
    gain_samples: NonNegativeInt = 512
    functions: tuple[FunctionTask, ...] = ()
    batch_size: PositiveInt = 256


def check_functions(tasks: Sequence[FunctionTask]) -> None:
    """Raise ConfigError for measures that cannot be imported or stand twice: before a run, not after hours of it."""
    for number, task in enumerate(tasks):
        if task.name in (other.name for other in tasks[:number]):
            raise ConfigError(f"evaluate.functions.{number}: {task.name} stands twice; a measure has one row")
        try:
            imported(task.function)
        except ValueError as error:
            raise ConfigError(f"evaluate.functions.{number}: {error}") from error
