"""The attentive probe: equals independent implementations, reads what a mean hides, and is deterministic."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import randomise
from torch import Tensor, nn

from jepa.evaluate.probes.attentive import GRID, AttentiveProbe, ProbeTraining, attentive_probe, probe_logits
from jepa.evaluate.splits import Examples, Splits
from jepa.probe.averages import pooling
from jepa.probe.saved import SavedProbe

FAST = ProbeTraining(steps=120, device=torch.device("cpu"), bf16=False)


def rare_token(counts: tuple[int, int, int] = (300, 100, 100), views: int = 1, width: int = 16) -> Splits[Examples]:
    """One of 12 tokens carries the class; the others are noise that hides it in the mean."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Examples:
        labels = torch.randint(3, (count,), generator=generator)
        tokens = torch.randn(count, views, 12, width, generator=generator)
        position = torch.randint(12, (count, views), generator=generator)
        marked = torch.zeros(count, views, width)
        marked[..., 0] = 6  # marks the token that carries the class
        marked = marked + 6 * torch.nn.functional.one_hot(labels + 1, width)[:, None]
        rows, columns = torch.arange(count)[:, None], torch.arange(views)[None]
        tokens[rows, columns, position] = marked
        return Examples(torch.nn.functional.layer_norm(tokens, (width,)).bfloat16(), labels)

    return Splits(*map(split, counts))


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_probe_is_attention_of_a_query_to_projected_tokens(blocks: int) -> None:
    probe = AttentiveProbe(64, 5, blocks)
    randomise(probe)
    assert probe.heads == 2
    reference = nn.MultiheadAttention(64, probe.heads, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([probe.to_query.weight, probe.to_key.weight, probe.to_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([probe.to_query.bias, probe.to_key.bias, probe.to_value.bias]))
        reference.out_proj.weight.copy_(torch.eye(64))
        reference.out_proj.bias.zero_()
    tokens = torch.randn(3, 7, 64)
    with torch.no_grad():
        encoded = tokens
        for block in probe.blocks:
            encoded = block(encoded)
        normed = probe.norm1(encoded)
        query = probe.query.expand(3, 1, 64)
        pooled = query + reference(query, normed, normed, need_weights=False)[0]
        pooled = pooled + probe.mlp(probe.norm2(pooled))
        torch.testing.assert_close(probe(tokens), probe.classifier(pooled[:, 0]), rtol=1e-4, atol=1e-4)


def test_a_probe_equals_the_attentive_pooler_of_transformers_with_its_weights() -> None:
    vjepa2: Any = pytest.importorskip("transformers.models.vjepa2.modeling_vjepa2")
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_pooler_layers": 3, "layer_norm_eps": 1e-5}
    pooler = vjepa2.VJEPA2AttentivePooler(vjepa2.VJEPA2Config(**sizes, attn_implementation="eager")).eval()
    randomise(pooler)
    probe = AttentiveProbe(64, 3, 4)
    theirs = dict(pooler.state_dict())
    ours = {"query": theirs.pop("query_tokens")[0, 0]}
    names = {"attention.proj": "self_attn.out_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    names |= {"norm1": "layer_norm1", "norm2": "layer_norm2"}
    for kind in ("weight", "bias"):
        for number in range(3):
            layer = f"self_attention_layers.{number}"
            qkv = [theirs.pop(f"{layer}.self_attn.{name}_proj.{kind}") for name in "qkv"]
            ours[f"blocks.{number}.attention.qkv.{kind}"] = torch.cat(qkv)
            ours |= {f"blocks.{number}.{to}.{kind}": theirs.pop(f"{layer}.{of}.{kind}") for to, of in names.items()}
        cross = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
        cross |= {"to_query": "cross_attn.q_proj", "to_key": "cross_attn.k_proj", "to_value": "cross_attn.v_proj"}
        ours |= {f"{to}.{kind}": theirs.pop(f"cross_attention_layer.{of}.{kind}") for to, of in cross.items()}
    assert not theirs
    missing = probe.load_state_dict(ours, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["classifier.weight", "classifier.bias"], [])
    tokens = torch.randn(2, 9, 64)
    with torch.no_grad():
        torch.testing.assert_close(probe(tokens), probe.classifier(pooler(tokens)), rtol=1e-4, atol=1e-4)


def test_probes_computed_together_equal_each_probe_alone() -> None:
    probes = [AttentiveProbe(32, 3, 1) for _ in range(3)]
    for probe in probes:
        randomise(probe)
        probe.query.data += torch.randn(32)
    tokens = torch.randn(4, 6, 32)
    together = probe_logits(probes, tokens)
    for probe, logits in zip(probes, together, strict=True):
        torch.testing.assert_close(probe(tokens), logits)


def test_a_probe_finds_the_one_token_that_carries_the_class() -> None:
    examples = rare_token()
    outcome = attentive_probe(examples, blocks=1, outputs=3, training=FAST)
    assert outcome.score > 0.9
    assert outcome.setting in GRID
    assert outcome == attentive_probe(examples, blocks=1, outputs=3, training=FAST)
    shuffled = Splits(
        examples.train, examples.validation, Examples(examples.test.features, examples.test.labels.roll(1))
    )
    assert attentive_probe(shuffled, 1, 3, FAST).setting == outcome.setting


def test_a_probe_of_several_blocks_learns_too() -> None:
    assert attentive_probe(rare_token(), blocks=2, outputs=3, training=FAST).score > 0.8


def test_training_uses_the_first_view_and_scores_average_over_views() -> None:
    examples = rare_token(views=2)
    train = Examples(examples.train.features.clone(), examples.train.labels)
    train.features[:, 1] = torch.nan  # never used
    blank = examples.test.features.clone()
    blank[:, 1] = 0  # the same for every sample, so the other view decides
    half = Splits(train, examples.validation, Examples(blank, examples.test.labels))
    alone = Splits(train, examples.validation, Examples(examples.test.features[:, :1], examples.test.labels))
    assert attentive_probe(half, 1, 3, FAST).score == pytest.approx(attentive_probe(alone, 1, 3, FAST).score, abs=0.1)
    both = attentive_probe(Splits(train, examples.validation, examples.test), 1, 3, FAST).score
    assert both >= attentive_probe(alone, 1, 3, FAST).score


def test_a_probe_predicts_numbers() -> None:
    def numbered(split: Examples) -> Examples:
        return Examples(split.features, 10.0 + 5.0 * split.labels)

    outcome = attentive_probe(rare_token().map(numbered), blocks=1, outputs=1, training=FAST)
    assert outcome.score < 2.0  # the labels have a standard deviation of 4


@pytest.mark.parametrize("blocks", [1, 2])
def test_tokens_that_a_sample_lacks_influence_no_probe(blocks: int) -> None:
    probe = AttentiveProbe(32, 3, blocks)
    randomise(probe)
    tokens = torch.randn(4, 6, 32)
    lacking = torch.cat([tokens, torch.full((4, 2, 32), torch.nan)], dim=1)
    saved = SavedProbe(probe.state_dict(), probe.heads, grid=(8,), averaged=(4,))
    whole = SavedProbe(probe.state_dict(), probe.heads, grid=(6,), averaged=(3,))
    torch.testing.assert_close(saved.logits(lacking), whole.logits(tokens), rtol=1e-4, atol=1e-4)

    examples = rare_token((60, 20, 20))
    padding = torch.full((1, 3, 16), torch.nan)

    def padded(split: Examples) -> Examples:
        added = padding.to(split.features).expand(len(split), 1, 3, 16)
        return Examples(torch.cat([split.features, added], dim=2), split.labels)

    few = replace(FAST, steps=12)
    alone, longer = (attentive_probe(one, blocks, 3, few).probe for one in (examples, examples.map(padded)))
    for ours, theirs in zip(longer.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_pooling_averages_neighbouring_tokens_down_to_the_limit() -> None:
    assert pooling((4, 3), 12) is None
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    means = pooling((2, 3, 4), 12)
    assert means is not None
    torch.testing.assert_close(means @ tokens.flatten(), tokens.unflatten(2, (2, 2)).mean(dim=-1).flatten())
    few = pooling((8, 14, 14), 512)
    assert few is not None
    assert few.shape == (8 * 7 * 7, 8 * 14 * 14)
    torch.testing.assert_close(few.sum(dim=1), torch.ones(len(few)))
    assert _covers(few)


def _covers(means: Tensor) -> bool:
    return bool((means.sum(dim=0) > 0).all())
