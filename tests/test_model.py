"""The three networks: where gradients go, how the target encoder moves, what is predicted."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny import MODEL, Noise, NoiseConfig, noise, random_masks, randomise
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from jepa.loss import LossConfig, prediction_loss
from jepa.model import JEPA, TargetKind

MASKS = [random_masks(3, seed=1), random_masks(3, blocks=2, size=5, seed=2)]


def jepa_of(target: TargetKind = "latent", target_layers: int = 1) -> JEPA:
    model = JEPA(dataclasses.replace(MODEL, target_layers=target_layers), Noise(NoiseConfig()), target)
    randomise(model)
    return model


@pytest.mark.parametrize("target", ["latent", "pixels"])
def test_gradients_reach_context_encoder_and_predictor_and_never_the_target_encoder(target: TargetKind) -> None:
    model = jepa_of(target)
    predictions = model(noise(3), MASKS)
    assert not any(prediction.target.requires_grad for prediction in predictions)
    prediction_loss(predictions, LossConfig()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("target_encoder."):
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0 or name.endswith("qkv.bias"), name


@pytest.mark.parametrize("target", ["latent", "pixels"])
def test_no_gradient_flows_through_hidden_patches(target: TargetKind) -> None:
    inputs = noise(3).requires_grad_()
    prediction_loss(jepa_of(target)(inputs, MASKS[:1]), LossConfig()).backward()
    assert inputs.grad is not None
    by_patch = F.avg_pool2d(inputs.grad.abs(), 2).sum(dim=1).flatten(1) > 0  # [B, N]
    assert torch.equal(by_patch, torch.zeros(3, 24).scatter(1, MASKS[0].context, 1.0) > 0)


def test_the_target_encoder_is_the_moving_average_that_pytorch_computes() -> None:
    model = jepa_of()
    average = AveragedModel(model.target_encoder, avg_fn=lambda old, new, _: 0.9 * old + (1 - 0.9) * new)
    average.update_parameters(model.target_encoder)  # its first update copies
    for _ in range(3):
        for parameter in model.context_encoder.parameters():
            nn.init.normal_(parameter)
        model.update_target(0.9)
        average.update_parameters(model.context_encoder)
    for (name, ours), theirs in zip(model.target_encoder.named_parameters(), average.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize(("kept", "expected"), [(1.0, "target_encoder"), (0.0, "context_encoder")])
def test_momentum_one_moves_nothing_and_momentum_zero_copies(kept: float, expected: str) -> None:
    model = jepa_of()
    wanted = {name: value.clone() for name, value in model.get_submodule(expected).state_dict().items()}
    model.update_target(kept)
    assert all(torch.equal(value, wanted[name]) for name, value in model.target_encoder.state_dict().items())


def test_target_and_context_encoder_start_alike() -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    assert torch.equal(model.target_encoder(noise(2)), model.context_encoder(noise(2)))


@pytest.mark.parametrize(("layers", "averaged"), [(1, 1), (2, 2), (0, 2)])
def test_targets_average_the_last_layers_each_normed(layers: int, averaged: int) -> None:
    model = jepa_of(target_layers=layers)
    outputs: list[Tensor] = []
    for block in model.target_encoder.blocks:
        block.register_forward_hook(lambda _block, _inputs, output: outputs.append(output))
    targets = model.targets(noise(3))
    last = model.target_encoder.norm(outputs.pop())
    chosen = [normed(output) for output in (*outputs, last)[-averaged:]]
    torch.testing.assert_close(targets, normed(sum(chosen) / len(chosen)), atol=1e-4, rtol=1e-4)


def normed(tokens: Tensor) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def test_one_pass_of_the_target_encoder_serves_all_sets_of_masks() -> None:
    model, passes = jepa_of(), []
    model.target_encoder.embedding.register_forward_hook(lambda *_: passes.append("target"))
    model.context_encoder.embedding.register_forward_hook(lambda *_: passes.append("context"))
    both = model(noise(3), MASKS)
    assert sorted(passes) == ["context", "context", "target"]
    for prediction, masks in zip(both, MASKS, strict=True):
        alone = model(noise(3), [masks])[0]
        assert all(torch.equal(one, other) for one, other in zip(prediction, alone, strict=True))


def test_pixel_targets_are_the_normalised_patches_of_the_masked_autoencoder() -> None:
    model, inputs = jepa_of("pixels"), noise(3) * 5 + 2
    cut = F.unfold(inputs, kernel_size=2, stride=2).mT  # [B, N, C * 2 * 2]
    torch.testing.assert_close(model.targets(inputs), normed(cut), atol=1e-5, rtol=1e-4)
    predicted = model(inputs, MASKS)[0].predicted
    assert predicted.shape == (3, 3, 4, 8)


def test_pixel_targets_need_patches() -> None:
    class Words(Noise):
        def embedding(self, dim: int) -> nn.Module:
            return nn.Embedding(100, dim)

    with pytest.raises(ValueError, match="target=pixels needs a modality whose tokens are patches"):
        JEPA(MODEL, Words(NoiseConfig()), "pixels")
