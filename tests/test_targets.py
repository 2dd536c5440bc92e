"""What the target encoder sees."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LENGTHS, MODEL, Noise, NoiseConfig, PaddedNoise, noise, padded, randomise
from torch import Tensor

from jepa.config import ConfigError
from jepa.loss import LossConfig
from jepa.masking import Masks, RandomMaskConfig, sample_masks
from jepa.modality import Stream
from jepa.model import JEPA
from jepa.training.checks import check_config
from jepa.training.config import Config

PREDICTED = dataclasses.replace(MODEL, target_input="predicted", target_layers=0, target_join="each")


def _row(inputs: Any, row: int) -> Any:
    return tuple(leaf[[row]] for leaf in inputs) if isinstance(inputs, tuple) else inputs[[row]]


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("alike", [True, False])
def test_predicted_tokens_are_encoded_as_if_nothing_else_existed(is_padded: bool, alike: bool) -> None:
    """Two views and four sets, of which two may predict more, against one sample and one set at a time."""
    model = JEPA(PREDICTED, (PaddedNoise if is_padded else Noise)(NoiseConfig()))
    randomise(model)
    views: list[Any] = [padded(), padded(1)] if is_padded else [noise(3, seed=1), noise(3, seed=2)]
    lengths = LENGTHS if is_padded else [24] * 3
    shares = [0.5] * 4 if alike else [0.5, 0.5, 0.25, 0.25]
    draws = [RandomMaskConfig(ratio=0.5, predicted=share) for share in shares]
    masks = [sample_masks((4, 6), one, 3, torch.Generator().manual_seed(seed)) for seed, one in enumerate(draws)]
    passes: list[int] = []
    model.target_encoder.embedding.register_forward_hook(lambda _module, _inputs, tokens: passes.append(len(tokens)))
    predictions = model(views, masks).predictions
    assert passes == ([12] if alike else [6, 6])  # sets that predict equally many tokens are one batch
    for number, (one, prediction) in enumerate(zip(masks, predictions, strict=True)):
        pair = prediction.pairs["latent"]
        for row in range(3):
            places = [place for place, token in enumerate(one.target[row, 0]) if token < lengths[row]]
            assert pair.valid is None or pair.valid[row, 0].nonzero().flatten().tolist() == places
            alone = Masks.of_context(one.target[row, :, places])
            expected = model.targets(_row(views[number % 2], row), masks=alone)[0]
            torch.testing.assert_close(pair.target[row, 0, places], expected, atol=1e-4, rtol=1e-4)


def test_outside_of_training_the_target_encoder_sees_all_tokens() -> None:
    model = JEPA(PREDICTED, Noise(NoiseConfig()))
    every: list[Tensor] = model.target_encoder.layers(noise(2))
    targets = model.targets(noise(2))
    assert targets.shape == (2, 24, 2, 24)
    expected = torch.stack([torch.nn.functional.layer_norm(layer, (24,)) for layer in every], dim=2)
    torch.testing.assert_close(targets, expected, atol=1e-4, rtol=1e-4)


def test_predicted_tokens_alone_are_refused_where_visible_tokens_streams_or_blocks_need_more(tmp_path: Path) -> None:
    joint = dataclasses.replace(PREDICTED, predictor=dataclasses.replace(PREDICTED.predictor, blocks="joint"))
    base: dict[str, Any] = {"modality": "noise", "run_dir": tmp_path, "data": NoiseConfig(), "model": joint}
    modality = Noise(NoiseConfig(masking=RandomMaskConfig()))
    streams = [Stream(name, torch.arange(12) + first, first, (12,)) for name, first in (("left", 0), ("right", 12))]
    check_config(Config(**base), modality)
    with pytest.raises(ConfigError, match=r"^loss\.visible: .* model\.target_input=all"):
        check_config(Config(**base, loss=LossConfig(visible="uniform")), modality)
    modality.streams = streams
    with pytest.raises(ConfigError, match=r"^model\.target_input: noise data has several streams"):
        check_config(Config(**base), modality)
