"""Self-supervised pretraining by prediction in representation space, for any modality."""

from jepa.weights.load import load, load_modality

__all__ = ["load", "load_modality"]
