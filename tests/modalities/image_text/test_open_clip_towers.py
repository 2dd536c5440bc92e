"""Towers equal those of open_clip, dropped tokens have no influence, and errors name what is missing."""

import copy
import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from modalities.image_text import open_clip_files, tokenizer
from modalities.image_text.attention import FastAttention
from modalities.image_text.open_clip_files import TowerSizes, pixel_statistics
from modalities.image_text.towers import Towers, build_towers

TEXT = {"context_length": 12, "width": 64, "heads": 2, "layers": 2}
VISION = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
CLIP = TowerSizes(embed_dim=48, vision_cfg=VISION, text_cfg=TEXT)
TIMM = {"timm_proj": None, "image_size": 160}
SIGLIP_TEXT = TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
KINDS = {
    "clip": CLIP,
    "clipa": TowerSizes(
        embed_dim=48,
        vision_cfg=VISION | {"pool_type": "avg", "final_ln_after_pool": True},
        text_cfg=TEXT | {"no_causal_mask": True, "pool_type": "last"},
        mask_padding=False,
    ),
    "coca": TowerSizes(
        embed_dim=48,
        vision_cfg=VISION
        | {"attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 4, "output_tokens": True},
        text_cfg=TEXT | {"embed_cls": True, "output_tokens": True},
    ),
    "own attention": TowerSizes(
        embed_dim=48,
        vision_cfg=VISION | {"qk_norm": True, "scale_fc": True, "ls_init_value": 0.1, "no_ln_pre": True},
        text_cfg=TEXT | {"qk_norm": True, "pool_type": "eos", "eos_id": 49407, "proj_type": "none", "width": 48},
        quick_gelu=True,
    ),
    "siglip": TowerSizes(
        embed_dim=96,
        vision_cfg=TIMM | {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
        text_cfg=SIGLIP_TEXT,
        mask_padding=False,
    ),
    "mean of patches": TowerSizes(
        embed_dim=48, vision_cfg=TIMM | {"timm_model_name": "test_vit4", "timm_pool": "avg"}, text_cfg=TEXT
    ),
    "eva": TowerSizes(
        embed_dim=48,
        vision_cfg={
            "timm_model_name": "eva02_tiny_patch14_224",
            "timm_pool": "token",
            "timm_proj": None,
            "image_size": 224,
        },
        text_cfg=TEXT,
    ),
}
CAPTIONS = ["a red square", "two blue circles, left of a tree", ""]


@pytest.fixture(params=KINDS)
def sizes(request: pytest.FixtureRequest) -> TowerSizes:
    return KINDS[request.param]


def seeded(sizes: TowerSizes) -> Towers:
    torch.manual_seed(0)
    return evaluated(build_towers(sizes))


def evaluated(towers: Towers) -> Towers:
    towers.image.eval()
    towers.text.eval()
    return towers


def images_for(towers: Towers, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *towers.image.image_size, generator=torch.Generator().manual_seed(1))


def random_keep(count: int, of: int, batch: int = 3) -> Tensor:
    draws = torch.rand(batch, of, generator=torch.Generator().manual_seed(2))
    return draws.argsort(dim=1)[:, :count].sort(dim=1).values


def open_clips(sizes: TowerSizes) -> CustomTextCLIP:
    """open_clip's own model with seeded weights."""
    torch.manual_seed(0)
    model = CustomTextCLIP(sizes.embed_dim, sizes.vision_cfg, sizes.text_cfg, quick_gelu=sizes.quick_gelu).eval()
    model.visual.output_tokens = model.text.output_tokens = False
    return model


@torch.no_grad()
def assert_same_embeddings(towers: Towers, model: nn.Module) -> None:
    images, ids = images_for(towers), towers.tokenize(CAPTIONS)
    assert difference(towers.image(images)[0], model.encode_image(images, normalize=False)) < 1e-5
    assert difference(towers.text(ids)[0], model.encode_text(ids, normalize=False)) < 1e-5


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value; scales of embeddings differ by a factor of a thousand."""
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_whole_inputs_are_encoded_as_in_open_clip(sizes: TowerSizes) -> None:
    towers = seeded(sizes)
    assert_same_embeddings(towers, open_clips(sizes))
    images, ids = images_for(towers), towers.tokenize(CAPTIONS)
    patches = towers.image.grid[0] * towers.image.grid[1]
    for tower, inputs, count in ((towers.image, images, patches), (towers.text, ids, towers.text.length)):
        whole, everything = tower(inputs), tower(inputs, torch.arange(count).expand(3, -1))
        assert difference(everything[0], whole[0]) < 1e-5
        assert difference(everything[1], whole[1]) < 1e-5
        assert whole[0].shape == (3, towers.embed_dim)
        assert whole[1].shape == (3, count, tower.width)


@torch.no_grad()
def test_dropped_patches_and_the_order_of_kept_ones_have_no_influence(sizes: TowerSizes) -> None:
    image = seeded(sizes).image
    rows, columns = image.grid
    keep = random_keep(5, rows * columns)
    images = images_for(Towers(image, *[None] * 3))  # type: ignore[arg-type]
    dropped = torch.ones(3, rows * columns, dtype=torch.bool).scatter(1, keep, False).view(3, 1, rows, columns)
    patch = [side // count for side, count in zip(image.image_size, image.grid, strict=True)]
    noise = dropped.repeat_interleave(patch[0], 2).repeat_interleave(patch[1], 3) * torch.randn_like(images)
    pooled, tokens = image(images, keep)
    torch.testing.assert_close(image(images + noise, keep), (pooled, tokens), rtol=0, atol=0)
    assert difference(image(images + noise)[0], image(images)[0]) > 1e-2

    order = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    reordered = image(images, keep[:, order])
    assert difference(reordered[0], pooled) < 1e-5
    assert difference(reordered[1], tokens[:, order]) < 1e-5


@torch.no_grad()
def test_dropping_patches_equals_masking_them_in_open_clips_transformer() -> None:
    image, visual = seeded(CLIP).image, open_clips(CLIP).visual
    images, keep = images_for(seeded(CLIP), 1), random_keep(6, 16, 1)
    hidden = torch.full((17, 17), float("-inf"))
    hidden[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + keep[0]])] = 0.0
    pooled, tokens = visual._pool(visual.transformer(visual._embeds(images), attn_mask=hidden))
    torch.testing.assert_close(image(images, keep), (pooled @ visual.proj, tokens[:, keep[0]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "clipa", "own attention"])
def test_dropping_tokens_equals_open_clips_tower_with_the_remaining_positions(kind: str) -> None:
    towers, reference = seeded(KINDS[kind]), open_clips(KINDS[kind]).text
    ids = towers.tokenize(CAPTIONS)[1:2]
    keep = torch.tensor([[0, 2, 3, 6, 9, 11]])
    assert 49407 in ids[0, keep[0]]
    reference.positional_embedding = nn.Parameter(reference.positional_embedding[keep[0]])
    reference.attn_mask = None if reference.attn_mask is None else reference.attn_mask[:6, :6]
    reference.output_tokens = True
    torch.testing.assert_close(towers.text(ids, keep), reference(ids[:, keep[0]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dropped_tokens_have_no_influence(sizes: TowerSizes) -> None:
    towers = seeded(sizes)
    ids, keep = towers.tokenize(CAPTIONS)[1:2], torch.tensor([[0, 1, 4, 5, 9, 11]])
    changed = ids.clone()
    changed[0, [2, 3, 6]] = torch.tensor([1000, 2000, 3000])  # within the caption, before its end token
    torch.testing.assert_close(towers.text(changed, keep), towers.text(ids, keep), rtol=0, atol=0)
    assert difference(towers.text(changed)[0], towers.text(ids)[0]) > 1e-3


def test_a_caption_without_its_end_token_is_pooled_at_the_last_token_before_it() -> None:
    text, ids = seeded(CLIP).text, seeded(CLIP).tokenize(["a red square"])  # ends at index 4
    with_padding, without = text(ids, torch.tensor([[0, 1, 3, 7]])), text(ids, torch.tensor([[0, 1, 3]]))
    torch.testing.assert_close(with_padding[0], without[0])


BIDIRECTIONAL = [
    replace(CLIP, text_cfg=TEXT | {"no_causal_mask": True}),
    replace(CLIP, text_cfg=TEXT | {"no_causal_mask": True, "pool_type": "last"}),
]


@torch.no_grad()
@pytest.mark.parametrize("sizes", [CLIP, *BIDIRECTIONAL], ids=["causal", "bidirectional", "bidirectional, last"])
@pytest.mark.parametrize("keep", [None, torch.tensor([[0, 1, 3, 4, 8]] * 3)], ids=["all", "some"])
def test_the_contents_of_padding_have_no_influence(sizes: TowerSizes, keep: Tensor | None) -> None:
    towers = seeded(sizes)
    ids = towers.tokenize(CAPTIONS)
    present = towers.text.valid(ids)
    padded = torch.where(present, ids, torch.randint(1, 40000, ids.shape))
    shown = present if keep is None else present.gather(1, keep)
    for first, second in zip(towers.text(ids, keep), towers.text(padded, keep), strict=True):
        rows = slice(None) if first.ndim == 2 else shown
        torch.testing.assert_close(first[rows], second[rows], atol=1e-6, rtol=1e-6)
        assert first.isfinite().all()
    assert torch.equal(towers.text.valid(padded), present)


@torch.no_grad()
def test_masked_padding_equals_open_clips_padding_mask() -> None:
    text = seeded(BIDIRECTIONAL[0]).text
    reference = TextTransformer(**TEXT, output_dim=48, no_causal_mask=True, use_pad_mask=True, output_tokens=True)
    reference.load_state_dict({name.removeprefix("tower."): value for name, value in text.state_dict().items()})
    ids = seeded(CLIP).tokenize(CAPTIONS)
    present = text.valid(ids)
    (pooled, tokens), (their_pooled, their_tokens) = text(ids), reference(ids)
    torch.testing.assert_close(pooled, their_pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[present], their_tokens[present], atol=1e-5, rtol=1e-5)


def test_present_tokens_are_those_of_the_caption_and_its_marks() -> None:
    towers = build_towers(CLIP)
    captions = ["", "!", "wow!!!?! nice", "a cat", "one two three four five six seven eight nine ten eleven twelve"]
    ids = towers.tokenize(captions)
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    expected = [min(12, len(tokenizer.encode(caption)) + 2) for caption in captions]
    assert towers.text.valid(ids).sum(dim=1).tolist() == expected
    assert ids.dtype == torch.int64
    assert ids.shape == (5, 12)


def test_every_parameter_gets_a_gradient(sizes: TowerSizes) -> None:
    towers = seeded(sizes)
    images, ids = images_for(towers), towers.tokenize(CAPTIONS)
    for tower, inputs in ((towers.image, images), (towers.text, ids)):
        pooled, tokens = tower(inputs, random_keep(5, 12))
        (pooled.square().sum() + tokens.square().sum()).backward()
        idle = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
        assert not idle
        tower.zero_grad(set_to_none=True)
        tower(inputs, random_keep(5, 12))[0].square().sum().backward()  # the pooled vector depends on them too
        idle = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
        assert not idle


def test_activation_checkpointing_changes_no_gradient(sizes: TowerSizes) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        towers = seeded(sizes)
        towers.image.activation_checkpointing = towers.text.activation_checkpointing = checkpointing
        images, ids = images_for(towers), towers.tokenize(CAPTIONS)
        towers.image.train()(images)[0].square().sum().backward()
        towers.text.train()(ids, random_keep(5, 12))[0].square().sum().backward()
        return [parameter.grad for tower in towers[:2] for parameter in tower.parameters()]  # type: ignore[misc]

    torch.testing.assert_close(gradients(True), gradients(False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_attention_equals_torchs_attention(dtype: torch.dtype, masked: bool) -> None:
    torch.manual_seed(0)
    slow = nn.MultiheadAttention(64, 4, batch_first=True)
    fast = FastAttention(copy.deepcopy(slow))
    tokens = torch.randn(3, 10, 64)
    mask = torch.full((10, 10), float("-inf")).triu(1) if masked else None
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = slow(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
        found = fast(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
    assert fast.state_dict().keys() == slow.state_dict().keys()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_seed_determines_the_weights_and_their_names_are_open_clips(sizes: TowerSizes) -> None:
    first, second, model = seeded(sizes), seeded(sizes), open_clips(sizes)
    for tower, other, theirs in ((first.image, second.image, model.visual), (first.text, second.text, model.text)):
        state = tower.state_dict()
        assert all(torch.equal(state[name], value) for name, value in other.state_dict().items())
        assert list(state) == [f"tower.{name}" for name in theirs.state_dict()]
    images = images_for(first)
    copied = copy.deepcopy(first.image)
    assert torch.equal(copied(images)[1], first.image(images)[1])


def folder_with(sizes: TowerSizes, path: Path, **more: Any) -> str:
    """A folder with the config of these towers, as written by open_clip."""
    config = {"embed_dim": sizes.embed_dim, "vision_cfg": sizes.vision_cfg, "text_cfg": sizes.text_cfg} | more
    pixels = {"mean": [0.5] * 3, "std": [0.25] * 3}
    path.mkdir(exist_ok=True)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    return f"local-dir:{path}"


@pytest.mark.parametrize(
    ("kind", "custom_text"),
    [("clip", False), ("clip", True), ("siglip", True), ("coca", True)],
    ids=["clip", "clip, custom text", "siglip", "coca"],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_saved_weights_of_open_clip_load(kind: str, custom_text: bool, suffix: str, tmp_path: Path) -> None:
    sizes = KINDS[kind]
    decoder = TEXT | {"vocab_size": 49408, "layers": 1}
    more = {"siglip": {"init_logit_bias": -10}, "coca": {"multimodal_cfg": decoder}}.get(kind, {})
    source = folder_with(sizes, tmp_path / "model", **more)
    model = open_clip.create_model(source, load_weights=False, force_custom_text=custom_text).eval()
    file = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), file)
    assert_same_embeddings(evaluated(build_towers(source, pretrained=str(file))), model)
    if kind == "clip":
        assert_same_embeddings(evaluated(build_towers(sizes, pretrained=str(file))), model)


def test_a_folder_provides_architecture_weights_and_pixel_statistics(tmp_path: Path) -> None:
    source = folder_with(CLIP, tmp_path)
    save_file(open_clips(CLIP).state_dict(), tmp_path / "open_clip_model.safetensors")
    towers = evaluated(build_towers(source, pretrained=source))
    assert_same_embeddings(towers, open_clips(CLIP))
    stated = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    beside = str(tmp_path / "open_clip_model.safetensors")
    for architecture, pretrained in ((source, None), (source, source), (CLIP, source), ("ViT-L-14", beside)):
        assert pixel_statistics(architecture, pretrained) == stated


@pytest.mark.parametrize(("kind", "size"), [("clip", (48, 32)), ("siglip", (96, 160))])
def test_positions_are_interpolated_to_another_size_as_in_open_clip(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    source = folder_with(KINDS[kind], tmp_path)
    torch.save(open_clips(KINDS[kind]).state_dict(), tmp_path / "model.pth")
    towers = evaluated(build_towers(source, pretrained=source, image_size=size))
    assert towers.image.image_size == size
    assert_same_embeddings(towers, open_clip.create_model(source, force_custom_text=True, force_image_size=size).eval())


@pytest.mark.parametrize("name", ["ViT-S-32-alt", pytest.param("EVA02-B-16", marks=pytest.mark.slow)])
def test_named_architectures_equal_open_clips_and_are_built_without_output(
    name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(0)
        towers = evaluated(build_towers(name))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    torch.manual_seed(0)
    assert_same_embeddings(towers, open_clip.create_model(name, force_custom_text=True).eval())


NAMES = {  # architecture: patches, width, end token, mean of red
    "ViT-S-32-alt": (49, 384, 49407, 0.48145466),
    "ViT-B-32": (49, 768, 49407, 0.48145466),
    "ViT-B-16-quickgelu": (196, 768, 49407, 0.48145466),
    "ViT-L-14": (256, 1024, 49407, 0.48145466),
    "ViT-H-14-CLIPA": (256, 1280, None, 0.485),
    "ViT-B-16-SigLIP": (196, 768, 1, 0.5),
    "ViT-B-16-SigLIP2": (196, 768, 1, 0.5),
    "ViT-SO400M-14-SigLIP-384": (729, 1152, 1, 0.5),
    "EVA02-B-16": (196, 768, 49407, 0.48145466),
    "PE-Core-B-16": (196, 768, 49407, 0.5),
    "MobileCLIP2-L-14": (256, 1024, 49407, 0.48145466),
    "coca_ViT-B-32": (49, 768, 49407, 0.48145466),
}


@pytest.mark.parametrize("name", NAMES)
def test_architectures_of_every_family_run_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        towers = build_towers(name, pretrained="no such weights, but the meta device needs none")
        pooled, patches = towers.image(torch.empty(2, 3, *towers.image.image_size), torch.zeros(2, 5).long())
        caption, tokens = towers.text(torch.zeros(2, towers.text.length).long(), torch.zeros(2, 4).long())
    assert pooled.shape == caption.shape == (2, towers.embed_dim)
    assert (patches.shape, tokens.shape) == ((2, 5, towers.image.width), (2, 4, towers.text.width))
    (rows, columns), red = towers.image.grid, pixel_statistics(name, None)[0][0]
    found = (rows * columns, towers.image.width, towers.text.end, red)
    assert found == NAMES[name]


def test_towers_on_the_meta_device_have_the_same_contents(sizes: TowerSizes) -> None:
    def contents(towers: Towers) -> dict[str, torch.Size]:
        both = nn.ModuleList([towers.image, towers.text])
        return {name: value.shape for name, value in (*both.named_parameters(), *both.named_buffers())}

    with torch.device("meta"):
        empty = build_towers(sizes)
    assert contents(empty) == contents(build_towers(sizes))


@pytest.mark.parametrize(
    ("architecture", "pretrained", "red"),
    [("ViT-L-14", None, 0.48145466), ("ViT-L-14", "laion2b_s32b_b82k", 0.5), ("ViT-B-16-SigLIP", "file.pt", 0.5)],
)
def test_pixel_statistics_are_those_of_the_weights(
    architecture: str, pretrained: str | None, red: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pt").touch()
    assert pixel_statistics(architecture, pretrained)[0][0] == red


def test_pixel_statistics_of_missing_weights_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights 'local-dir:.*gone' for ViT-L-14"):
        pixel_statistics("ViT-L-14", f"local-dir:{tmp_path / 'gone'}")


@pytest.mark.parametrize(
    "stated", [{"mean": [123, 117, 104]}, {"std": [0, 0.2, 0.2]}, {"mean": [0.5, 0.5]}, {"std": "imagenet"}]
)
def test_pixel_statistics_of_a_folder_must_be_in_range(stated: dict[str, object], tmp_path: Path) -> None:
    source = folder_with(CLIP, tmp_path)
    file = tmp_path / "open_clip_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"preprocess_cfg": stated}))
    with pytest.raises(ValueError, match=r"open_clip_config\.json: preprocess_cfg: "):
        pixel_statistics(source, None)
    file.write_text(json.dumps(config | {"preprocess_cfg": {"mean": 0.5, "std": 1}}))  # one number for all channels
    assert pixel_statistics(source, None) == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"architecture": "vit-b32"}, r"no architecture 'vit-b32'; nearest: ViT-B-32"),
        ({"architecture": "RN50"}, r"RN50 has no patch tokens.*use a vision transformer such as"),
        ({"architecture": "convnext_base"}, r"convnext_base has no plain patch tokens"),
        (
            {"architecture": "ViTamin-S"},
            r"ViTamin-S has no plain patch tokens \(its image tower is vitamin_small_224\)",
        ),
        ({"architecture": "MobileCLIP-S1"}, r"MobileCLIP-S1 has no plain patch tokens"),
        ({"architecture": "roberta-ViT-B-32"}, r"text tower of Hugging Face \(roberta-base\).*such as ViT-B-32"),
        ({"architecture": "local-dir:nowhere"}, r"nowhere needs .*open_clip_config.json"),
        ({"architecture": "ViT-B-32", "pretrained": "laion"}, r"a tag of open_clip .*laion2b_s34b_b79k"),
        ({"architecture": "ViT-B-32", "pretrained": "openai"}, r"activation.* ViT-B-32; use ViT-B-32-quickgelu"),
        ({"architecture": CLIP, "pretrained": "gone.pt"}, r"no weights 'gone.pt' for towers of .*; give a file"),
        ({"architecture": CLIP, "image_size": (33, 32)}, r"images of 33 x 32 do not divide into patches of 8 x 8"),
        ({"architecture": KINDS["siglip"], "image_size": (99, 96)}, r"do not divide into patches of 16 x 16"),
        ({"architecture": replace(CLIP, text_cfg=TEXT | {"pool_type": "eos"})}, r"'eos' needs eos_id"),
        ({"architecture": replace(CLIP, vision_cfg=VISION | {"widht": 1})}, r"unknown key 'widht'; nearest: width"),
        ({"architecture": replace(CLIP, vision_cfg=VISION | {"patch_dropout": 0.5})}, r"patch_dropout must be 0"),
        ({"architecture": replace(CLIP, vision_cfg=VISION | {"timm_drop_path": 0.1})}, r"timm_drop_path must be 0"),
        (
            {"architecture": replace(CLIP, text_cfg=TEXT | {"scaled_cosine_attn": True})},
            r"text_cfg: scaled_cosine_attn",
        ),
        ({"architecture": replace(CLIP, vision_cfg=VISION | {"width": 65})}, r"open_clip cannot build towers of"),
        ({"architecture": replace(CLIP, text_cfg=TEXT | {"vocab_size": 100})}, r"too small for CLIP's 49408 ids"),
        ({"architecture": replace(CLIP, text_cfg=TEXT | {"pool_type": "none"})}, r"does not pool captions"),
    ],
)
def test_towers_that_cannot_be_built_are_errors_of_one_line(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        build_towers(**arguments)
    assert "\n" not in str(caught.value)


def test_missing_and_unfitting_weights_are_errors_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\n\nTry again")

    torch.save(open_clips(KINDS["clipa"]).state_dict(), tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"not weights")
    monkeypatch.setattr(open_clip_files, "download_pretrained", no_network)
    monkeypatch.setattr(tokenizer, "HFTokenizer", no_network)
    larger = replace(CLIP, embed_dim=40)
    for attempt, reason in (
        (lambda: build_towers(larger, pretrained=str(tmp_path / "other.pt")), r"other.pt do not fit towers.*size mis"),
        (lambda: build_towers(CLIP, pretrained=str(tmp_path / "broken.pt")), r"broken.pt do not fit"),
        (lambda: build_towers("ViT-S-32-alt", pretrained=str(tmp_path)), r"holds no weights"),
        (lambda: build_towers("ViT-B-32-quickgelu", pretrained="openai"), r"'openai' of ViT-B-32-quickgelu could not"),
        (lambda: siglip_tokenizer()(["a"]), r"tokenizer 'timm/ViT-B-16-SigLIP' is not on this machine"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def siglip_tokenizer() -> tokenizer.CaptionTokenizer:
    config = open_clip_files.tower_config("ViT-B-16-SigLIP", None)
    return tokenizer.caption_tokenizer("ViT-B-16-SigLIP", config)


def test_tokenizers_are_picklable() -> None:
    tokenize = build_towers(CLIP).tokenize
    ids = tokenize(CAPTIONS)
    assert torch.equal(ids, open_clip.tokenizer.SimpleTokenizer(context_length=12)(CAPTIONS))
    pickled = pickle.dumps(tokenize)
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled)(CAPTIONS), ids)


def test_a_folder_may_contain_a_tokenizer_of_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "</s>": 1, "a": 2, "cat": 3}, "<pad>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(tmp_path)
    text = TEXT | {"vocab_size": 4, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "pool_type": "last"}
    towers = build_towers(folder_with(replace(CLIP, text_cfg=text), tmp_path))
    ids = pickle.loads(pickle.dumps(towers.tokenize))(["a cat", "cat"])
    assert ids.tolist() == [[2, 3, 1] + [0] * 9, [3, 1] + [0] * 10]
    assert towers.text.valid(ids).sum(dim=1).tolist() == [3, 2]
