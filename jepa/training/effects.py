"""Which settings of a run have no effect, apart from those of its data; see `jepa.config.effects`.

A config is Any here, as its dataclass imports this module.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from jepa.config import ConfigError
from jepa.config.effects import Use
from jepa.data import seeded
from jepa.matching import MatchedModality
from jepa.modality import Modality
from jepa.targets import VIEWS
from jepa.training.stages import lasting, unread_teachers
from jepa.training.teachers import SnapshotTeacher

Finding = tuple[str, str]  # setting, reason
_TRAINING_ONLY = (
    *("compute.parallel", "compute.compile", "compute.activation_checkpointing"),
    *("compute.cache_mb", "compute.prefetch_mb"),
)
_NO_LATENT = "no stage predicts representations"
_LABELLED = (
    *("train_samples", "validation_samples", "low_shot_draws"),
    *("attentive", "attentive_samples", "attentive_tokens", "attentive_steps", "keep_probes"),
)


def run_effects(config: Any, use: Use) -> dict[str, str]:
    """Settings of a run without effect, with the reason."""
    evaluation = dict(
        [*_positions(config, use), *_forecasts(config, use), *_streams(config, use), *_labels(config, use)]
    )
    if use.evaluates:
        only_training = dict.fromkeys(_TRAINING_ONLY, "only training uses it")
        at_end = dict.fromkeys(("evaluate.enabled", "evaluate.report"), "it is for the end of a training")
        return {**only_training, **at_end, **evaluation}
    found = [
        _stages(config),
        _targets(config),
        _views(config, use),
        _loss(config, use),
        _networks(config, use),
        _schedule(config, use),
    ]
    return dict(itertools.chain(*found)) | evaluation


def _positions(config: Any, use: Use) -> Iterator[Finding]:
    if config.data.position_grid and type(use.modality).positions is not Modality.positions:
        yield "data.position_grid", f"{config.modality} data places tokens in its own way"


def _stages(config: Any) -> Iterator[Finding]:
    ends = lasting(config.stages, config.steps)
    for number, stage in enumerate(config.stages):
        if number not in ends:
            yield f"stages.{number}", f"its share of the run's {config.steps:,} steps rounds to none"
            continue
        steps, teacher = ends[number][1] - ends[number][0], stage.teacher
        if isinstance(teacher, SnapshotTeacher) and teacher.refreshes >= steps:
            reason = f"the stage has room for {steps - 1:,}, which is a copy before every step"
            yield f"stages.{number}.teacher.refreshes", reason
    for number, following in unread_teachers(config.stages, config.steps):
        reason = f"stages.{number} needs no target encoder, and stages.{following} starts with a copy"
        yield f"stages.{number}.teacher", reason
    last = config.stages[max(ends)]
    encoder = config.evaluate.encoder
    if isinstance(last.teacher, SnapshotTeacher) and not last.reads_target_encoder and encoder != "target_encoder":
        reason = "the last stage needs no target encoder; {kind: frozen} evaluates the context encoder as well"
        yield f"stages.{max(ends)}.teacher", reason


def _targets(config: Any) -> Iterator[Finding]:
    model = config.model
    if "latent" not in config.target_kinds:
        normalised = ("loss.normalise_prediction",) if config.loss.normalise_prediction else ()
        for name in ("model.target_layers", "model.target_join", "model.target_input", *normalised):
            yield name, _NO_LATENT
    elif model.target_join == "each" and len(model.target_outputs) == 1:
        yield "model.target_join", "model.target_layers names a single layer"


def _views(config: Any, use: Use) -> Iterator[Finding]:
    stages = [config.stages[number] for number in lasting(config.stages, config.steps)]
    if use.modality.local_views and not any(VIEWS in stage.predict for stage in stages):
        yield "data.local_views", "no stage predicts views"
    if config.loss.invariance and all(VIEWS in stage.predict for stage in stages):
        yield "loss.invariance", "every stage predicts views, whose weight replaces it"
    if not any(stage.predicts_tokens for stage in stages):
        masking = config.data.masking if hasattr(config.data, "masking") else ()
        sets = range(len(masking)) if isinstance(masking, tuple) else ()
        predicted = ["data.masking.predicted", *(f"data.masking.{number}.predicted" for number in sets)]
        for name in ("loss.distance", "model.predictor", *predicted):
            yield name, "no stage predicts tokens"


def _loss(config: Any, use: Use) -> Iterator[Finding]:
    loss, model = config.loss, config.model
    regularised = loss.regulariser != "none" and loss.regulariser_weight > 0
    reason = "there is no loss.regulariser" if loss.regulariser == "none" else "loss.regulariser_weight is 0"
    if not regularised:
        yield from ((f"loss.{name}", reason) for name in ("invariance", "agreement") if getattr(loss, name))
        if model.projector and VIEWS not in config.target_kinds:
            yield "model.projector", reason
        if loss.regulariser == "none":
            yield "loss.regulariser_weight", reason
        else:
            yield "loss.regulariser", reason
    if loss.agreement and len(use.modality.streams) < 2:
        yield "loss.agreement", f"it compares streams, and {config.modality} data has one"
    if loss.invariance and not use.modality.streams and use.is_set("loss.invariance") and len(_masks(use)) == 1:
        yield "loss.invariance", "it compares sets of masks, and a step has one"
    if loss.visible == "none":
        yield from ((f"loss.visible_{name}", "loss.visible is none") for name in ("weight", "ramp"))
    if model.contrast == "none":
        yield "loss.contrast_weight", "there is no model.contrast"
    if not loss.prediction_weight:
        normalised = ("loss.normalise_prediction",) if loss.normalise_prediction else ()
        predicted = [f"stages.{number}.predict" for number in range(len(config.stages))]
        for name in ("loss.distance", *normalised, *predicted):
            yield name, "loss.prediction_weight is 0"


def _networks(config: Any, use: Use) -> Iterator[Finding]:
    predictor = config.model.predictor
    if not config.model.projector:
        yield "model.projector_norm", "there is no model.projector"
    if predictor.mask_tokens == 1:
        yield "model.predictor.share_mask_token", "there is one mask token"
    if config.start_from is None:
        yield "start_fresh", "there is no start_from"
    if config.compute.workers == 0:
        yield "compute.prefetch_mb", "compute.workers is 0"
    if predictor.attention == "cross":
        yield "model.predictor.blocks", "under attention=cross, targets never see each other"
    if config.compute.parallel == "fsdp" and use.processes == 1:
        yield "compute.parallel", "there is one process, which keeps all weights; start several to shard them"


def _schedule(config: Any, use: Use) -> Iterator[Finding]:
    optim = config.optim
    if not optim.warmup:
        yield "optim.start_lr", "optim.warmup is 0"
    if optim.warmup == 1:
        yield from ((f"optim.{name}", "the warm-up is the whole run") for name in ("decay", "final_lr"))
    elif optim.decay == "constant":
        yield "optim.final_lr", "optim.decay=constant stays at the peak"
    if config.keep_every and config.keep_every > config.steps:
        yield "keep_every", f"the run has {config.steps} steps"
    if not config.probe.every:
        yield from ((f"probe.{name}", "probe.every is 0") for name in ("train_samples", "validation_samples"))


def _forecasts(config: Any, use: Use) -> Iterator[Finding]:
    axis, evaluate = use.modality.forecast_axis, config.evaluate
    reason = ""
    if axis is None:
        reason = f"{config.modality} data has no time axis"
    elif use.modality.grid[axis] < 2:
        reason = "the time axis has a single token"
    elif "latent" not in config.target_kinds:
        reason = _NO_LATENT
    if reason and evaluate.forecast_samples:
        yield "evaluate.forecast_samples", reason
    if reason or not evaluate.forecast_samples:
        yield "evaluate.forecast_cut", reason or "evaluate.forecast_samples is 0"


def _streams(config: Any, use: Use) -> Iterator[Finding]:
    evaluate, modality = config.evaluate, use.modality
    reason = ""
    if not isinstance(modality, MatchedModality):
        reason = f"{config.modality} data lacks two matching streams"
    elif "latent" not in config.target_kinds:
        reason = _NO_LATENT
    if reason and evaluate.gallery is not None:
        yield "evaluate.gallery", reason
    if not reason and use.is_set("evaluate.gain_samples") and isinstance(modality, MatchedModality):
        trained = config.loss.prediction_weight and modality.gain_masks(1, seeded("gain", 0)) is not None
        reason = "" if trained else "the run does not train with and without the second stream"
    if reason and evaluate.gain_samples:
        yield "evaluate.gain_samples", reason


def _labels(config: Any, use: Use) -> Iterator[Finding]:
    """Settings of probes. Which labels there are is known once the data is open, so it opens only where needed."""
    evaluate = config.evaluate
    if not any(use.is_set_by_user(f"evaluate.{name}") for name in _LABELLED):
        return
    try:
        tasks = use.modality.tasks
    except (OSError, ValueError) as error:
        raise ConfigError(f"data: {error}") from error
    if not tasks and not evaluate.functions:
        yield from ((f"evaluate.{name}", "the data has no labels") for name in _LABELLED if getattr(evaluate, name))
        return
    if all(task.kind != "class" for task in tasks):
        yield "evaluate.low_shot_draws", "no label is a class"
    if all(task.kind == "map" for task in tasks) and evaluate.attentive:
        yield "evaluate.attentive", "no label belongs to a whole sample"
    blocks = [task.attentive if evaluate.attentive is None else evaluate.attentive for task in tasks]
    if not any(blocks):
        reason = "no task has an attentive probe; set evaluate.attentive=[1]"
        names = ("attentive_samples", "attentive_tokens", "attentive_steps", "attentive_norm", "keep_probes")
        yield from ((f"evaluate.{name}", reason) for name in names)


def _masks(use: Use) -> Sequence[Any]:
    masks: Sequence[Any] = use.modality.sample_masks(2, seeded("masks", use.config.seed, 0))
    return masks
