"""The three networks: gradients, the moving average, targets and predictions."""

import dataclasses
import itertools
import re
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from tiny import LENGTHS, MODEL, Noise, NoiseConfig, PaddedNoise, noise, padded, random_masks, randomise
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from jepa.loss import LossConfig, prediction_loss
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.targets import TargetKind

MASKS = [random_masks(3, seed=1), random_masks(3, blocks=2, size=5, seed=2)]


def jepa_of(*targets: TargetKind, **config: Any) -> JEPA:
    model = JEPA(dataclasses.replace(MODEL, **config), Noise(NoiseConfig()), targets or ("latent",))
    randomise(model)
    return model


@pytest.mark.parametrize("target", ["latent", "pixels"])
def test_gradients_reach_context_encoder_and_predictor_but_not_the_target_encoder(target: TargetKind) -> None:
    model = jepa_of(target)
    predictions = model([noise(3)], MASKS, (target,)).predictions
    assert not any(prediction.pairs[target].target.requires_grad for prediction in predictions)
    prediction_loss(predictions, LossConfig(), {target: 1.0}).backward()
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
    prediction_loss(jepa_of(target)([inputs], MASKS[:1], (target,)).predictions, LossConfig(), {target: 1.0}).backward()
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


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, "target_encoder"), (0.0, "context_encoder")])
def test_momentum_one_changes_nothing_and_momentum_zero_copies(momentum: float, expected: str) -> None:
    model = jepa_of()
    wanted = {name: value.clone() for name, value in model.get_submodule(expected).state_dict().items()}
    model.update_target(momentum)
    assert all(torch.equal(value, wanted[name]) for name, value in model.target_encoder.state_dict().items())


def test_target_and_context_encoder_start_equal() -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    assert torch.equal(model.target_encoder(noise(2)), model.context_encoder(noise(2)))


@pytest.mark.parametrize(
    ("layers", "chosen"), [(1, [2]), (2, [1, 2]), (0, [1, 2]), ((0,), [0]), ((2, 0), [2, 0]), ((0, 1, 2), [0, 1, 2])]
)
@pytest.mark.parametrize("join", ["mean", "each"])
def test_targets_are_the_chosen_layers_each_normed(
    layers: int | tuple[int, ...], chosen: list[int], join: Literal["mean", "each"]
) -> None:
    model = jepa_of(target_layers=layers, target_join=join)
    outputs: list[Tensor] = []
    for module in (model.target_encoder.embedding, *model.target_encoder.blocks):
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    targets = model.targets(noise(3))
    outputs[-1] = model.target_encoder.norm(outputs[-1])
    expected = torch.stack([normed(outputs[index]) for index in chosen], dim=2)
    if join == "mean":
        expected = normed(expected.mean(dim=2, keepdim=True))
    torch.testing.assert_close(targets, expected, atol=1e-4, rtol=1e-4)
    prediction = model([noise(3)], MASKS).predictions[0].pairs["latent"]
    assert prediction.predicted.shape == prediction.target.shape == (3, 3, 4, *expected.shape[2:])
    assert torch.equal(prediction.target[1, 2, 3], targets[1, MASKS[0].target[1, 2, 3]])


@pytest.mark.parametrize("layers", [3, (3,), (0, 7), ()])
def test_target_layers_beyond_the_encoder_are_refused(layers: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"target_layers: {layers}")):
        jepa_of(target_layers=layers)


def test_kinds_of_target_share_encoders_and_predictor_but_have_their_own_outputs() -> None:
    model, alone = jepa_of("pixels", "latent"), jepa_of("pixels")
    alone.load_state_dict(
        {name: value[: alone.state_dict()[name].shape[0]] if "project." in name else value
         for name, value in model.state_dict().items()}
    )  # fmt: skip
    computed: list[int] = []
    model.predictor.register_forward_hook(lambda *call: computed.append(call[-1].shape[-1]))
    for kind, width in (("pixels", 8), ("latent", 24)):
        predicted, target = model([noise(3)], MASKS[:1], (kind,)).predictions[0].pairs[kind][:2]
        assert predicted.shape == target.shape == (3, 3, 4, 1, width)
    assert computed == [8, 24]  # no outputs of a kind that the step does not predict
    both, one = (each([noise(3)], MASKS[:1], ("pixels",)).predictions[0].pairs["pixels"] for each in (model, alone))
    torch.testing.assert_close(both.predicted, one.predicted)
    assert torch.equal(both.target, one.target)
    pairs = model([noise(3)], MASKS[:1], ("pixels", "latent")).predictions[0].pairs
    assert list(pairs) == ["pixels", "latent"]
    torch.testing.assert_close(pairs["pixels"].predicted, both.predicted)
    assert torch.equal(pairs["latent"].target, model([noise(3)], MASKS[:1]).predictions[0].pairs["latent"].target)


def normed(tokens: Tensor) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def test_all_sets_of_masks_share_one_pass_of_the_target_encoder() -> None:
    model, passes = jepa_of(), []
    model.target_encoder.embedding.register_forward_hook(lambda *_: passes.append("target"))
    model.context_encoder.embedding.register_forward_hook(lambda *_: passes.append("context"))
    both = model([noise(3)], MASKS).predictions
    assert sorted(passes) == ["context", "context", "target"]
    for prediction, masks in zip(both, MASKS, strict=True):
        alone = model([noise(3)], [masks]).predictions[0]
        assert torch.equal(prediction.pooled["tokens"], alone.pooled["tokens"])
        assert all(map(torch.equal, prediction.pairs["latent"][:2], alone.pairs["latent"][:2]))


@pytest.mark.parametrize("alike", [True, False])
def test_mask_set_i_applies_to_view_i_mod_views(alike: bool) -> None:
    model, views = jepa_of(), [noise(3, seed=1), noise(3, seed=2)]
    masks = [random_masks(3, seed=seed, size=4 if alike else 2 + seed) for seed in range(4)]
    passes: list[int] = []
    model.target_encoder.embedding.register_forward_hook(lambda *call: passes.append(len(call[-1])))
    together = model(views, masks).predictions
    assert passes == [6]  # both views at once
    for number, prediction in enumerate(together):
        alone = model([views[number % 2]], [masks[number]]).predictions[0]
        torch.testing.assert_close(prediction.pooled, alone.pooled, atol=1e-5, rtol=1e-5)
        for found, expected in zip(prediction.pairs["latent"], alone.pairs["latent"], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_pooled_contexts_are_the_projected_mean_of_the_context() -> None:
    plain, projected = jepa_of(), jepa_of(projector=10)
    for model in (plain, projected):
        context = model.context_encoder(noise(3), MASKS[0])
        pooled = model([noise(3)], MASKS).predictions[0].pooled["tokens"]
        torch.testing.assert_close(pooled, model.projectors["tokens"](context.mean(dim=1)))
    assert [len(list(model.projectors.parameters())) for model in (plain, projected)] == [0, 6]
    assert pooled.shape == (3, 10)


def test_sets_of_one_shape_run_as_one_batch_with_the_same_result() -> None:
    model, masks, passes = jepa_of(), [random_masks(3, seed=seed) for seed in (1, 2, 3)], []
    model.context_encoder.embedding.register_forward_hook(lambda *_: passes.append("context"))
    together = model([noise(3)], masks).predictions
    assert len(passes) == 1
    for prediction, one in zip(together, masks, strict=True):
        expected = model([noise(3)], [one]).predictions[0].pairs["latent"]
        for found, wanted in zip(prediction.pairs["latent"], expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_pixel_targets_are_the_normalised_patches_of_the_masked_autoencoder() -> None:
    model, inputs = jepa_of("pixels"), noise(3) * 5 + 2
    cut = F.unfold(inputs, kernel_size=2, stride=2).mT  # [B, N, C * 2 * 2]
    torch.testing.assert_close(model.targets(inputs, "pixels"), normed(cut).unsqueeze(2), atol=1e-5, rtol=1e-4)
    predicted = model([inputs], MASKS, ("pixels",)).predictions[0].pairs["pixels"].predicted
    assert predicted.shape == (3, 3, 4, 1, 8)


def test_pixel_targets_need_patches() -> None:
    class Words(Noise):
        def embedding(self, dim: int) -> nn.Module:
            return nn.Embedding(100, dim)

    with pytest.raises(ValueError, match="predicting pixels needs a modality whose tokens are patches"):
        JEPA(MODEL, Words(NoiseConfig()), ("pixels",))


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("attention", ["self", "cross"])
@pytest.mark.parametrize("blocks", ["separate", "joint"])
def test_padded_samples_train_as_if_each_were_alone_without_padding(alike: bool, attention: Any, blocks: Any) -> None:
    """Loss, gradients and pooled contexts ignore padding, and the loss counts valid targets only."""
    shape = dataclasses.replace(MODEL.predictor, attention=attention, blocks=blocks)
    model = JEPA(dataclasses.replace(MODEL, predictor=shape), PaddedNoise(NoiseConfig()))
    randomise(model)
    masks = [random_masks(3, seed=1), random_masks(3, seed=2)] if alike else MASKS

    def learned(inputs: Any, sets: list[Masks]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        model.zero_grad()
        predictions = model([inputs], sets).predictions
        loss = prediction_loss(predictions, LossConfig(), {"latent": 1.0})
        loss.backward()
        found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        return loss.detach(), found, [prediction.pooled["tokens"].detach() for prediction in predictions]

    loss, gradients, pooled = learned(padded(), masks)
    again = learned(padded(seed=1), masks)
    assert loss == again[0]
    for one, other in zip((*gradients, *pooled), (*again[1], *again[2]), strict=True):
        assert torch.equal(one, other)

    distances: list[list[Tensor]] = [[], []]
    for (number, one), row in itertools.product(enumerate(masks), range(3)):
        length = LENGTHS[row]
        kept = one.context[[row]][:, one.context[row] < length]
        sets = [block[block < length] for block in one.target[row]]
        asked = [torch.cat(sets)] if blocks == "joint" else [block for block in sets if len(block)]
        context = model.context_encoder((padded()[0][[row]], LENGTHS[[row]]), Masks.of_context(kept))
        torch.testing.assert_close(pooled[number][row], context.mean(dim=1)[0], atol=1e-4, rtol=1e-4)
        alone = Masks.of_context(torch.arange(length)[None])
        whole = model.targets((padded()[0][[row]], LENGTHS[[row]]), masks=alone)
        for block in asked:
            guess = model.predict(context, Masks(kept, block[None, None]))[0, 0]
            distances[number].append(F.smooth_l1_loss(guess, whole[0, block], reduction="none").mean(dim=(1, 2)))
    expected = torch.stack([torch.cat(of_set).mean() for of_set in distances]).mean()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
