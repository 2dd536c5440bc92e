"""`jepa convert` writes models that other libraries load, with our features, and says what a format cannot hold."""

from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import torch
from tiny import randomise

import jepa
from jepa.checkpoint import Checkpoint, latest
from jepa.config import plain
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.weights.convert import main as convert

SHAPE = [
    *("data.image_size=16", "data.patch_size=8", "compute.workers=0"),
    *("model.size={width: 24, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 2, heads: 2}"),
]
# What the published methods set, and our small recipes do not.
PUBLISHED = [
    *("curriculum.pixel_weight=0", "curriculum.latent_from=0", "model.target_layers=1", "model.target_join=mean"),
    *("model.projector=0", "loss.regulariser=none", "loss.invariance=0"),
]
IMAGE = ["data.masking={kind: random}"]
VIDEO = ["data.frames=4", "data.masking=[{kind: random}, {kind: random}]"]


def saved(modality: str, run_dir: Path, *settings: str) -> Path:
    """A run directory with a checkpoint of random networks whose every weight matters."""
    config, built = resolve(modality, {}, [*SHAPE, f"run_dir={run_dir}", *settings])
    model = JEPA(config.model, built, config.target_kinds)
    for network in (model, model.target_encoder):
        randomise(network)
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.mul_(0.9)
    Checkpoint(3, 1.5, plain(config), model.state_dict(), {}).save(latest(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("image", tmp_path_factory.mktemp("run") / "image", *IMAGE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("video", tmp_path_factory.mktemp("run") / "video", *VIDEO, "model.positions=rotary")


def random_images(batch: int, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def assert_equal_features(theirs: Any, ours: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(theirs), ours, rtol=1e-5, atol=1e-5)


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


def test_an_exported_program_loads_without_this_package(video: Path, tmp_path: Path) -> None:
    file, encoder = tmp_path / "video.pt2", jepa.load(video)
    assert convert([str(video), str(file), "--to", "torch-export"]) == 0
    inputs = torch.randn(3, 3, 4, 16, 16)
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


def test_a_graph_of_another_resolution_has_interpolated_positions(image: Path, tmp_path: Path) -> None:
    file = tmp_path / "image.pt2"
    assert convert([str(image), str(file), "--to", "torch-export", "--resolution", "32"]) == 0
    tokens = torch.export.load(file).module()(random_images(2, 32))
    assert tokens.shape == (2, 16, 24)


def test_an_existing_file_is_kept(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "image.pt2"
    file.write_text("mine")
    assert convert([str(image), str(file), "--to", "torch-export"]) == 1
    assert "image.pt2 exists; name a new file or folder" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
