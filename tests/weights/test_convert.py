"""`jepa convert` writes models that other libraries load, with our features, and says what a format cannot hold."""

import errno
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fork_server
import numpy as np
import pytest
import torch
from converted import IMAGE, VIDEO, assert_equal_features, assert_same, saved
from official_code import needs_official_code, official
from PIL import Image as PillowImage
from safetensors.torch import load_file
from small_runs import small
from tiny import Codes

import jepa
from jepa.checkpoint import Checkpoint
from jepa.config import plain
from jepa.data import seeded
from jepa.encoder import gather_tokens
from jepa.model import JEPA
from jepa.weights.convert import main as convert
from jepa.weights.load import model_of as model_of_checkpoint, read_checkpoint
from jepa.weights.opened import open_source


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("image", tmp_path_factory.mktemp("run") / "image", *IMAGE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("video", tmp_path_factory.mktemp("run") / "video", *VIDEO, "model.positions=rotary")


def random_images(batch: int, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def test_onnxruntime_gives_our_features_for_every_batch_size(image: Path, tmp_path: Path) -> None:
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    file, encoder = tmp_path / "image.onnx", jepa.load(image, "context_encoder")
    assert convert([str(image), str(file), "--to", "onnx", "--which", "context_encoder", "--opset", "19"]) == 0
    session = runtime.InferenceSession(file)
    for batch in (1, 2, 5):
        inputs = random_images(batch)
        (tokens,) = session.run(None, {"inputs": inputs.numpy()})
        assert_equal_features(tokens, encoder(inputs))
    assert onnx.load(file).opset_import[0].version == 19
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["encoder"] == "context_encoder"
    assert [path.name for path in tmp_path.iterdir()] == ["image.onnx"]


def test_an_exported_program_of_another_resolution_loads_without_this_package(video: Path, tmp_path: Path) -> None:
    file, encoder = tmp_path / "video.pt2", open_source(video, ["data.image_size=32"]).encoder()
    assert convert([str(video), str(file), "--to", "torch-export", "--resolution", "32"]) == 0
    inputs = torch.randn(3, 3, 4, 32, 32)
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    (tmp_path / "alone.py").write_text(
        "import sys, torch, numpy\n"
        "for name in [name for name in sys.modules if name.partition('.')[0] in ('jepa', 'modalities')]:\n"
        "    del sys.modules[name]\n"
        "sys.modules['jepa'] = sys.modules['modalities'] = None\n"  # importing them fails
        "program = torch.export.load('video.pt2').module()\n"
        "inputs = torch.from_numpy(numpy.load('inputs.npy'))\n"
        "numpy.save('tokens.npy', torch.cat([program(inputs[:1]), program(inputs[1:])]).detach().numpy())\n"
    )
    done = fork_server.run("alone.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal_features(np.load(tmp_path / "tokens.npy"), encoder(inputs))


def test_a_full_disk_ends_an_export_with_a_sentence(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert convert([str(image), str(tmp_path / "image.pt2"), "--to", "torch-export"]) == 1
    assert "image.pt2 cannot be written: the disk is full" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "image.pt2"
    file.write_text("mine")
    assert convert([str(image), str(file), "--to", "torch-export"]) == 1
    assert "image.pt2 exists; name a new file or folder" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture(scope="module")
def vjepa2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [*VIDEO, "model.positions=rotary_vjepa2", "model.predictor.mask_tokens=2"]
    return saved("video", tmp_path_factory.mktemp("run") / "vjepa2", *settings)


def opened_model(source: Path) -> Any:
    """Networks and modality of a source."""
    opened = open_source(source)
    assert opened.checkpoint is not None
    networks = model_of_checkpoint(opened.checkpoint, opened.config, opened.modality)
    return SimpleNamespace(model=networks, modality=opened.modality)


def example(source: Path) -> torch.Tensor:
    return torch.randn(2, *jepa.load_modality(source).example_view().shape)


def model_of(source: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(source).model


def test_an_image_encoder_loads_in_transformers_and_its_pipeline(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    folder, again, encoder = tmp_path / "image-hf", tmp_path / "again-hf", jepa.load(image, "context_encoder")
    assert convert([str(image), str(folder), "--to", "hf", "--which", "context_encoder"]) == 0
    printed = capsys.readouterr().err
    assert f'load it with transformers.AutoModel.from_pretrained("{folder}")' in printed
    assert "Loading weights" not in printed
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = random_images(3)
    with torch.no_grad():
        assert_equal_features(theirs(inputs).last_hidden_state, encoder(inputs))
    pixels = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    pipeline = transformers.pipeline("image-feature-extraction", model=str(folder))
    (found,) = pipeline(PillowImage.fromarray(pixels.permute(1, 2, 0).numpy()))
    ours = encoder(jepa.load_modality(image).evaluation_view(pixels).unsqueeze(0))[0]
    assert (torch.tensor(found) - ours).abs().mean() < 0.05 * ours.abs().mean()  # other arithmetic of resizing
    back = model_of(folder)
    kept = {name: value for name, value in model_of(image).items() if name.startswith("context_encoder.")}
    assert_same({name: value for name, value in back.items() if not name.startswith("target_encoder.")}, kept)
    assert convert([str(folder), str(again), "--to", "hf"]) == 0
    assert_same(load_file(again / "model.safetensors"), load_file(folder / "model.safetensors"))
    assert convert([str(folder), str(tmp_path / "image.pt"), "--to", "official"]) == 1
    assert "--to official cannot express an encoder without a predictor" in capsys.readouterr().err


def test_the_printed_call_creates_the_encoder_in_timm(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    assert convert([str(image), "to timm/image.safetensors", "--to", "timm"]) == 0
    call = re.search(r"load it with (timm\.create_model\(.*?\)), for", capsys.readouterr().err)
    assert call is not None
    theirs, inputs, ours = eval(call[1], {"timm": timm}).eval(), random_images(3), jepa.load(image)
    with torch.no_grad():
        assert_equal_features(theirs.forward_features(inputs), ours(inputs))
        assert_equal_features(theirs(inputs), ours(inputs).mean(dim=1))
    assert convert(["to timm/image.safetensors", "again.safetensors", "--to", "timm"]) == 0
    assert_same(load_file("again.safetensors"), load_file("to timm/image.safetensors"))


def test_a_video_model_loads_in_transformers_with_its_predictor(vjepa2: Path, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path / "vjepa2-hf"
    assert convert([str(vjepa2), str(folder), "--to", "hf"]) == 0
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoVideoProcessor.from_pretrained(folder)
    assert (processor.crop_size["height"], *processor.image_mean) == (16, 0.485, 0.456, 0.406)
    clips = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        found = theirs(clips.transpose(1, 2))
    assert_equal_features(found.last_hidden_state, jepa.load(vjepa2)(clips))
    ours_of_run = opened_model(vjepa2)
    masks = replace(ours_of_run.modality.sample_masks(2, seeded(0))[0], number=1)  # transformers takes mask token 1
    context = gather_tokens(jepa.load(vjepa2)(clips), masks.context)
    with torch.no_grad():
        predicted = theirs(clips.transpose(1, 2), [masks.context], [masks.target[:, 0]]).predictor_output
        expected = ours_of_run.model.predict(context, masks)
    assert_equal_features(predicted.last_hidden_state, expected.flatten(1, 3))
    ours, back = model_of(vjepa2), model_of(folder)
    kept = {name: value for name, value in ours.items() if name.startswith(("predictor.", "target_encoder."))}
    assert_same({name: value for name, value in back.items() if not name.startswith("context_encoder.")}, kept)
    again = tmp_path / "again-hf"
    assert convert([str(folder), str(again), "--to", "hf"]) == 0
    assert_same(load_file(again / "model.safetensors"), load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["image", "vjepa", "vjepa2"])
def test_official_files_keep_all_three_networks_and_our_config(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name) if name != "vjepa" else saved("video", tmp_path / "run", *VIDEO)
    file, again, ours = tmp_path / "file.pth.tar", tmp_path / "again.pt", tmp_path / "ours.pt"
    assert convert([str(run), str(file), "--to", "official"]) == 0
    assert_same(model_of(file), model_of(run))
    inputs = example(run)
    assert_equal_features(jepa.load(file)(inputs), jepa.load(run)(inputs))
    assert convert([str(file), str(ours), "--to", "openjepa"]) == 0
    assert_same(model_of(ours), model_of(run))
    assert convert([str(ours), str(again), "--to", "official"]) == 0
    first, second = (torch.load(path, weights_only=True) for path in (file, again))
    for network in ("encoder", "predictor", "target_encoder"):
        assert_same(first[network], second[network])
    assert "root" not in first["openjepa"]["data"]


STAGES = "stages=[{until: 0.1, predict: pixels}, {predict: {pixels: 1, latent: 1, views: 1}, teacher: snapshot}]"
LAYERS = ["model.target_layers=[0,2,1]", "model.target_join=each"]


@pytest.mark.parametrize("to", ["official", "hf"])
def test_the_outputs_of_a_predictor_for_the_last_layer_are_kept_and_others_left_out(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [STAGES, *LAYERS, "model.projector=8", "loss.regulariser=vicreg", "data.views=2"]
    modality, shape = (
        ("image", [*IMAGE, "data.mask_sets=2"])
        if to == "official"
        else ("video", [*VIDEO, "model.positions=rotary_vjepa2"])
    )
    run, there = saved(modality, tmp_path / "run", *shape, *settings), tmp_path / "there.pt"
    assert convert([str(run), str(there), "--to", to]) == 0
    printed = capsys.readouterr().err
    assert "left out: the predictor's outputs for pixels and layers 0, 1 (the format predicts the last layer" in printed
    assert "left out: projectors" in printed
    ours, theirs = opened_model(run), opened_model(there)
    masks = replace(ours.modality.sample_masks(2, seeded(0))[0], number=1)
    context = torch.randn(*masks.context.shape, 24)
    expected = ours.model.predict(context, masks)[..., 1:2, :]  # of layers 0, 2 and 1
    assert_equal_features(theirs.model.predict(context, masks), expected)
    inputs = example(run)
    assert_equal_features(jepa.load(there)(inputs), jepa.load(run)(inputs))


ARCHITECTURES: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
ROTARY: dict[str, Any] = {"img_size": (16, 16), "use_rope": True, "use_sdpa": False}
PUBLISHED = "model.positions=sincos_published"
ON_CLIPS: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, **ARCHITECTURES}


@needs_official_code
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("checkout", "modality", "settings", "arguments"),
    [
        ("ijepa", "image", [*IMAGE, PUBLISHED], {"img_size": [16], "patch_size": 8, **ARCHITECTURES}),
        ("jepa", "video", [*VIDEO, PUBLISHED], {**ON_CLIPS, "uniform_power": True}),
        ("vjepa2", "video", [*VIDEO, "model.positions=rotary_vjepa2"], {**ON_CLIPS, **ROTARY}),
    ],
)
def test_the_official_code_loads_our_file_and_gives_our_features(
    checkout: str, modality: str, settings: list[str], arguments: dict[str, Any], tmp_path: Path
) -> None:
    run = saved(modality, tmp_path / "run", *settings)
    assert convert([str(run), str(tmp_path / "file.pt"), "--to", "official"]) == 0
    content = torch.load(tmp_path / "file.pt", weights_only=True)
    inputs = example(run)
    with official(checkout) as load:
        theirs = load("src.models.vision_transformer").VisionTransformer(**arguments, mlp_ratio=4, qkv_bias=True).eval()
    for network, which in (("encoder", "context_encoder"), ("target_encoder", "target_encoder")):
        names = ("module.", "backbone.")
        state = {key.removeprefix(names[0]).removeprefix(names[1]): one for key, one in content[network].items()}
        if "pos_embed" in state:
            assert torch.equal(state["pos_embed"], theirs.pos_embed)  # the table that their code computed
        theirs.load_state_dict(state)
        for module in theirs.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-6  # as their vit_tiny and others set it
        with torch.no_grad():
            assert_equal_features(theirs(inputs), jepa.load(run, which)(inputs))


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        ("hf", r"--to hf cannot express model.positions=rotary \(for modality video it has rotary_vjepa2\); use --to"),
        (
            "official",
            r"positions=rotary \(for modality video it has sincos, sincos_published and rotary_vjepa2\); use --to",
        ),
    ],
)
def test_what_a_format_cannot_express_is_one_sentence(
    to: str, sentence: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert([str(video), str(tmp_path / "out.pt"), "--to", to]) == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_custom_modality_is_for_formats_of_any_modality(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, modality = small("modality=tiny:Noise", "model.size={width: 24, depth: 1, heads: 2}")
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(0, 0.0, plain(config), model.state_dict(), {}).save(tmp_path / "noise.pt")
    assert convert([str(tmp_path / "noise.pt"), str(tmp_path / "noise-hf"), "--to", "hf"]) == 1
    sentence = "--to hf cannot express modality tiny:Noise; use --to openjepa or --to onnx or --to torch-export"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_inputs_that_are_codes_of_categories_are_exported(kind: str, tmp_path: Path) -> None:
    config, modality = small("modality=tiny:Codes", "data.grid=[4,6]", "model.size={width: 24, depth: 1, heads: 2}")
    model = JEPA(config.model, Codes(modality.config), config.target_kinds)
    Checkpoint(0, 0.0, plain(config), model.state_dict(), {}).save(tmp_path / "codes.pt")
    ending = {"onnx": "onnx", "torch-export": "pt2"}[kind]
    assert convert([str(tmp_path / "codes.pt"), str(tmp_path / f"codes.{ending}"), "--to", kind, "--trust"]) == 0
