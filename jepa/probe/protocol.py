"""The protocol of evaluation, during training (`probe`) and after it (`evaluate`): sections of a config."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

Which = Literal["target_encoder", "context_encoder"]


@dataclass(frozen=True, kw_only=True)
class FunctionTask:
    """A custom metric: the row `label/package.module:function` of the results.

    function: takes jepa.evaluate.splits.Splits of Examples, features [n, F] and labels [n] of the samples that train
    (`train`), choose settings (`validation`) and are scored (`test`); returns a number. It is called for the trained
    encoder, the untrained one, every baseline, and shuffled features (chance). label: of the samples; the modality need
    not have a task for it.
    """

    function: str
    label: str
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """Key of its row."""
        return f"{self.label}/{self.function}"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation on frozen features after training.

    enabled: evaluate at the end of a run. report: write report.html at the end of a run.
    encoder: the encoder to evaluate; null for the target encoder if it is a moving average in the last stage, as in
    published results, otherwise for the context encoder.
    scored_split: `validation` leaves the test split unread while you search for a recipe: the validation split gives
    the scores, and training samples that train no probe choose the settings.
    train_samples, validation_samples, test_samples: limits on the labelled samples that train the probes, choose their
    settings, and give the scores; null for train_samples: 5,000, or 24 per class if that is more, at most 50,000, so
    that nearly every class has the labels of `low_shot_12`. Probes are not retrained on validation samples.
    low_shot_draws: number of random draws of the few labels. map_tokens: tokens per split for tasks of kind `map`.
    attentive: block counts of attentive probes, such as [1, 4]; null for the choice of each task. One block costs
    seconds, each further one a hundred times as much.
    attentive_samples, attentive_tokens: limits on the samples of each split, and on the tokens per view, that attentive
    probes keep in memory in bf16; excess tokens are averaged with neighbours. attentive_steps: steps of 64 samples.
    attentive_norm: layer-norm the tokens first; false: as published, which matters to probes of several blocks.
    keep_probes: write the attentive probes of the trained encoder to `probes/` beside the results.
    forecast_samples: samples of the training and of the scored split for forecasts of the later part of an input, cut
    at the share `forecast_cut`; 0 for none. Only for modalities with a `forecast_axis`.
    gallery: for modalities with two matching streams, the number of samples in each gallery of retrieval; null for all.
    gain_samples: samples on which to measure how much the second stream helps to predict the first; 0 for none.
    functions: custom metrics, see FunctionTask.
    """

    enabled: bool = True
    report: bool = True
    encoder: Which | None = None
    scored_split: Literal["validation", "test"] = "test"
    train_samples: PositiveInt | None = None
    validation_samples: PositiveInt = 1_000
    test_samples: PositiveInt = 2_000
    low_shot_draws: PositiveInt = 5
    map_tokens: PositiveInt = 32_768
    attentive: tuple[PositiveInt, ...] | None = None
    attentive_samples: PositiveInt = 2_000
    attentive_tokens: PositiveInt = 512
    attentive_steps: PositiveInt = 400
    attentive_norm: bool = True
    keep_probes: bool = False
    forecast_samples: NonNegativeInt = 512
    forecast_cut: Annotated[float, Field(gt=0, lt=1)] = 0.5
    gallery: PositiveInt | None = None
    gain_samples: NonNegativeInt = 512
    functions: tuple[FunctionTask, ...] = ()
    batch_size: PositiveInt = 256


CHANGE_NO_SCORE = ("enabled", "report", "keep_probes", "batch_size")  # settings of EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A probe during training: k-NN accuracy of the encoder that the run evaluates, which shows whether it learns.

    every: steps from one probe to the next; the last step has one too; 0 for none. The checkpoint of the best one is
    kept as checkpoints/best.pt. train_samples: labelled training samples, the neighbours that vote. validation_samples:
    samples of the validation split that are classified. Both are the same samples every time; nothing reads the test
    split.
    """

    every: NonNegativeInt = 0
    train_samples: PositiveInt = 2_000
    validation_samples: PositiveInt = 1_000

    def is_due(self, done: int, steps: int) -> bool:
        """Whether there is a probe after so many steps of a run of `steps`."""
        return bool(self.every) and (done % self.every == 0 or done == steps)

    def count(self, steps: int) -> int:
        """Number of probes of a run."""
        return -(-steps // self.every) if self.every else 0
