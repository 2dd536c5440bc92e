"""What the target encoder sees."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LENGTHS, MODEL, Noise, NoiseConfig, PaddedNoise, noise, padded, random_masks, randomise
from torch import Tensor

from jepa.config import ConfigError
from jepa.loss import LossConfig
from jepa.masking import Masks, RandomMaskConfig, sample_masks
from jepa.modality import Stream
from jepa.model import JEPA
from jepa.training.checks import check_config
from jepa.training.config import Config

HIDDEN = dataclasses.replace(MODEL, target_input="hidden", target_layers=0, target_join="each")


def _row(inputs: Any, row: int) -> Any:
    return tuple(leaf[[row]] for leaf in inputs) if isinstance(inputs, tuple) else inputs[[row]]


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("alike", [True, False])
def test_hidden_targets_are_those_of_an_encoder_that_sees_only_what_is_no_context(is_padded: bool, alike: bool) -> None:
    """Two views and four sets of several blocks each, against one sample and one set at a time."""
    model = JEPA(HIDDEN, (PaddedNoise if is_padded else Noise)(NoiseConfig()))
    randomise(model)
    views: list[Any] = [padded(), padded(1)] if is_padded else [noise(3, seed=1), noise(3, seed=2)]
    lengths = LENGTHS if is_padded else [24] * 3
    masks = [random_masks(3, context=8 if alike else 5 + seed // 2, seed=seed) for seed in range(4)]
    passes: list[int] = []
    model.target_encoder.embedding.register_forward_hook(lambda _module, _inputs, tokens: passes.append(len(tokens)))
    predictions = model(views, masks).predictions
    assert passes == ([12] if alike else [6, 6])  # sets with equally many hidden tokens are one batch
    for number, (one, prediction) in enumerate(zip(masks, predictions, strict=True)):
        pair = prediction.pairs["latent"]
        for row in range(3):
            valid = range(int(lengths[row]))
            hidden = [token for token in valid if token not in one.context[row].tolist()]
            alone = Masks.of_context(torch.tensor([hidden]))
            encoded = model.targets(_row(views[number % 2], row), masks=alone)[0]
            for block, place in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
                token = int(one.target[row, block, place])
                if token in hidden:
                    expected, found = encoded[hidden.index(token)], pair.target[row, block, place]
                    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
                else:
                    assert pair.valid is not None
                    assert not pair.valid[row, block, place]


def test_hidden_tokens_that_are_not_predicted_are_still_seen_by_the_target_encoder() -> None:
    model = JEPA(HIDDEN, Noise(NoiseConfig()))
    every = sample_masks((4, 6), RandomMaskConfig(ratio=0.5), 3, torch.Generator().manual_seed(0))
    some = sample_masks((4, 6), RandomMaskConfig(ratio=0.5, predicted=0.4), 3, torch.Generator().manual_seed(0))
    whole, part = (model([noise(3)], [masks]).predictions[0].pairs["latent"] for masks in (every, some))
    assert part.predicted.shape == (3, 1, 5, 2, 24)
    for row in range(3):
        places = torch.searchsorted(every.target[row, 0], some.target[row, 0])
        torch.testing.assert_close(part.target[row, 0], whole.target[row, 0, places], atol=1e-5, rtol=1e-5)


def test_outside_of_training_the_target_encoder_sees_all_tokens() -> None:
    model = JEPA(HIDDEN, Noise(NoiseConfig()))
    every: list[Tensor] = model.target_encoder.layers(noise(2))
    targets = model.targets(noise(2))
    assert targets.shape == (2, 24, 2, 24)
    expected = torch.stack([torch.nn.functional.layer_norm(layer, (24,)) for layer in every], dim=2)
    torch.testing.assert_close(targets, expected, atol=1e-4, rtol=1e-4)


def test_hidden_targets_are_refused_where_visible_tokens_or_streams_need_more(tmp_path: Path) -> None:
    joint = dataclasses.replace(HIDDEN, predictor=dataclasses.replace(HIDDEN.predictor, blocks="joint"))
    base: dict[str, Any] = {"modality": "noise", "run_dir": tmp_path, "data": NoiseConfig(), "model": joint}
    modality = Noise(NoiseConfig())
    streams = [Stream(name, torch.arange(12) + first, first, (12,)) for name, first in (("left", 0), ("right", 12))]
    check_config(Config(**base), modality)
    with pytest.raises(ConfigError, match=r"^loss\.visible: .* model\.target_input=all"):
        check_config(Config(**base, loss=LossConfig(visible="uniform")), modality)
    modality.streams = streams
    with pytest.raises(ConfigError, match=r"^model\.target_input: noise data has several streams"):
        check_config(Config(**base), modality)
