"""A model as I-JEPA, V-JEPA and V-JEPA 2 have it: the predictor predicts the encoder's last layer and nothing else."""

from dataclasses import replace

from jepa.targets import VIEWS
from jepa.training.stages import StageConfig
from jepa.weights.formats.export import Export

_PROJECT = "predictor.project"


def predicted_layers(export: Export) -> tuple[int, ...]:
    """The layers that the predictor predicts separately; a single one, or a mean of several, counts as the last."""
    model = export.config.model
    several = model.target_join == "each" and len(model.target_outputs) > 1
    return model.target_outputs if several else (model.depth,)


def with_last_layer(export: Export) -> tuple[Export, list[str]]:
    """The model without other outputs of the predictor, and what they are.

    The outputs for representations come last, layer by layer, see `in_order` in jepa/training/stages.py.
    """
    assert export.checkpoint is not None
    config, networks = export.config, export.checkpoint.model
    layers, width = predicted_layers(export), config.model.vit.width
    first = len(networks[f"{_PROJECT}.bias"]) - (len(layers) - layers.index(config.model.depth)) * width
    rows = {f"{_PROJECT}.{part}": networks[f"{_PROJECT}.{part}"][first : first + width] for part in ("weight", "bias")}
    targets = {"target_layers": 1} if len(layers) > 1 else {}
    changed = replace(
        config,
        model=replace(config.model, projector=0, **targets),
        loss=replace(config.loss, regulariser="none"),
        stages=(StageConfig(teacher=config.stages[-1].teacher),),
        evaluate=replace(config.evaluate, encoder=config.evaluated_encoder),
    )
    checkpoint = replace(export.checkpoint, model={**networks, **rows})
    return replace(export, checkpoint=checkpoint, config=changed), _left_out(export, layers)


def _left_out(export: Export, layers: tuple[int, ...]) -> list[str]:
    """The outputs of the predictor that are left out, in words."""
    kinds = [kind for kind in export.config.target_kinds if kind not in ("latent", VIEWS)]  # views have no outputs
    others = [str(layer) for layer in layers if layer != export.config.model.depth]
    words = [*kinds, *([f"layer{'s' * (len(others) > 1)} {', '.join(others)}"] if others else [])]
    return (
        [f"the predictor's outputs for {' and '.join(words)} (the format predicts the last layer alone)"]
        if words
        else []
    )
