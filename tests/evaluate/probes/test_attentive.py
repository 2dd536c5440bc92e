"""The attentive probe: equal to an independent implementation, able to see what a mean cannot, always the same."""

from typing import Any

import pytest
import torch
from tiny import randomise
from torch import Tensor, nn

from jepa.evaluate.probes.attentive import GRID, Attention, AttentiveProbe, Sequences, answers, attentive_probe, pooling
from jepa.evaluate.splits import Splits

FAST = Attention(steps=120, device=torch.device("cpu"), precision="fp32")


def rare_token(counts: tuple[int, int, int] = (300, 100, 100), views: int = 1, width: int = 16) -> Splits[Sequences]:
    """One of 12 tokens carries the class, in its direction; the others are noise in which the mean drowns."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Sequences:
        labels = torch.randint(3, (count,), generator=generator)
        tokens = torch.randn(count, views, 12, width, generator=generator)
        place = torch.randint(12, (count, views), generator=generator)
        told = torch.zeros(count, views, width)
        told[..., 0] = 6  # by which the token is known
        told = told + 6 * torch.nn.functional.one_hot(labels + 1, width)[:, None]
        rows, columns = torch.arange(count)[:, None], torch.arange(views)[None]
        tokens[rows, columns, place] = told
        return Sequences(torch.nn.functional.layer_norm(tokens, (width,)).bfloat16(), labels)

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
        seen = tokens
        for block in probe.blocks:
            seen = block(seen)
        normed = probe.norm1(seen)
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
    places = {"attention.proj": "self_attn.out_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    places |= {"norm1": "layer_norm1", "norm2": "layer_norm2"}
    for kind in ("weight", "bias"):
        for number in range(3):
            layer = f"self_attention_layers.{number}"
            qkv = [theirs.pop(f"{layer}.self_attn.{name}_proj.{kind}") for name in "qkv"]
            ours[f"blocks.{number}.attention.qkv.{kind}"] = torch.cat(qkv)
            ours |= {f"blocks.{number}.{to}.{kind}": theirs.pop(f"{layer}.{of}.{kind}") for to, of in places.items()}
        cross = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
        cross |= {"to_query": "cross_attn.q_proj", "to_key": "cross_attn.k_proj", "to_value": "cross_attn.v_proj"}
        ours |= {f"{to}.{kind}": theirs.pop(f"cross_attention_layer.{of}.{kind}") for to, of in cross.items()}
    assert not theirs
    missing = probe.load_state_dict(ours, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["classifier.weight", "classifier.bias"], [])
    tokens = torch.randn(2, 9, 64)
    with torch.no_grad():
        torch.testing.assert_close(probe(tokens), probe.classifier(pooler(tokens)), rtol=1e-4, atol=1e-4)


def test_probes_that_look_together_say_what_each_says_alone() -> None:
    probes = [AttentiveProbe(32, 3, 1) for _ in range(3)]
    for probe in probes:
        randomise(probe)
        probe.query.data += torch.randn(32)
    tokens = torch.randn(4, 6, 32)
    together = answers(probes, tokens)
    for probe, said in zip(probes, together, strict=True):
        torch.testing.assert_close(probe(tokens), said)


def test_what_one_token_tells_is_found_where_the_mean_hides_it() -> None:
    examples = rare_token()
    outcome = attentive_probe(examples, blocks=1, outputs=3, training=FAST)
    assert outcome.score > 0.9
    assert outcome.setting in GRID
    assert outcome == attentive_probe(examples, blocks=1, outputs=3, training=FAST)
    shuffled = Splits(
        examples.train, examples.validation, Sequences(examples.test.tokens, examples.test.labels.roll(1))
    )
    assert attentive_probe(shuffled, 1, 3, FAST).setting == outcome.setting


def test_several_blocks_learn_as_well() -> None:
    assert attentive_probe(rare_token(), blocks=2, outputs=3, training=FAST).score > 0.8


def test_probabilities_are_averaged_over_views_and_the_first_view_teaches() -> None:
    examples = rare_token(views=2)
    train = Sequences(examples.train.tokens.clone(), examples.train.labels)
    train.tokens[:, 1] = torch.nan  # never looked at
    blank = examples.test.tokens.clone()
    blank[:, 1] = 0  # says nothing: the same for every sample, so the other view decides
    seen = Splits(train, examples.validation, Sequences(blank, examples.test.labels))
    alone = Splits(train, examples.validation, Sequences(examples.test.tokens[:, :1], examples.test.labels))
    assert attentive_probe(seen, 1, 3, FAST).score == pytest.approx(attentive_probe(alone, 1, 3, FAST).score, abs=0.1)
    both = attentive_probe(Splits(train, examples.validation, examples.test), 1, 3, FAST).score
    assert both >= attentive_probe(alone, 1, 3, FAST).score


def test_numbers_are_read_too() -> None:
    def numbered(split: Sequences) -> Sequences:
        return Sequences(split.tokens, 10.0 + 5.0 * split.labels)

    outcome = attentive_probe(rare_token().map(numbered), blocks=1, outputs=1, training=FAST)
    assert outcome.score < 2.0  # the labels have a standard deviation of 4


def test_tokens_are_averaged_over_neighbours_until_they_are_few_enough() -> None:
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
