"""What results.json says of the source beside the scores."""

from typing import Any

from jepa.config import plain
from jepa.evaluate.setup import EvaluationSetup
from jepa.weights.families.encoder import FamilyEncoder


def summary(setup: EvaluationSetup) -> dict[str, Any]:
    """The source, its training, its inputs, the protocol, and the request."""
    opened, config = setup.opened, setup.config
    steps, seconds = (opened.checkpoint.step, opened.checkpoint.seconds) if opened.checkpoint else (0, 0.0)
    samples = steps * config.optim.batch_size
    return {
        "modality": config.modality,
        "source": opened.source,
        "steps": steps,
        "samples": samples,
        "train_seconds": round(seconds, 1),
        "samples_per_second": round(samples / seconds, 1) if seconds else 0.0,
        "stages": plain(config.stages),
        "encoder": config.evaluated_encoder if opened.checkpoint else "encoder",
        "network": _network(setup),
        "data": {name: plain(config.data).get(name) for name in ("source", "root")},
        "request": setup.record,
        "protocol": plain(config.evaluate) | {"train_samples": setup.limits["train"]},
    }


def _network(setup: EvaluationSetup) -> dict[str, Any]:
    """What a reader must know of the encoder: its size, and the inputs that it sees."""
    encoder, data = setup.encoders["jepa"], plain(setup.config.data)
    return {
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "dimensions": encoder.dim,
        "grid": list(setup.modality.grid),
        **{name: data[name] for name in ("image_size", "pixel_mean", "pixel_std") if data.get(name) is not None},
        **({"own_pooling": encoder.pooling} if isinstance(encoder, FamilyEncoder) and encoder.pooling else {}),
    }
