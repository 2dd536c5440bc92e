"""Loading trained networks has no side effects and reads a file once."""

import contextlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.utils._python_dispatch import TorchDispatchMode

import jepa
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import flatten, publish_shards, read_step
from jepa.config import ConfigError
from jepa.distributed import World
from jepa.train import train
from jepa.weights.load import configured, model_of, read_checkpoint, read_networks
from jepa.weights.trust import importing


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two steps on noise."""
    config, modality = small("modality=tiny:Noise", "model.size={width: 24, depth: 1, heads: 2}")
    run_dir = tmp_path / "run"
    train(replace(config, run_dir=run_dir), modality, World(0, 1, torch.device("cpu")))
    return run_dir


def test_loading_draws_nothing_from_the_global_generator(run: Path) -> None:
    before = torch.get_rng_state()
    encoder = jepa.load(run)
    assert torch.equal(torch.get_rng_state(), before)
    saved = Checkpoint.load(latest(run)).model
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, saved[f"target_encoder.{name}"], rtol=0, atol=0)


def test_a_loaded_encoder_does_not_depend_on_its_file(run: Path) -> None:
    encoder, inputs = jepa.load(run), torch.randn(2, 2, 16, 24)
    expected = encoder(inputs)
    latest(run).write_bytes(b"")
    assert torch.equal(encoder(inputs), expected)


def test_networks_are_read_from_a_file_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []

    def counted(path: Path, **options: Any) -> Any:
        reads.append(path)
        return read(path, **options)

    read: Callable[..., Any] = torch.load
    monkeypatch.setattr(torch, "load", counted)
    assert set(read_networks(run)) == set(Checkpoint.load(latest(run)).model)
    assert len(reads) == 2
    assert read_step(latest(run)) == 2


class RandomNumbers(TorchDispatchMode):
    """Counts the operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("normal", "uniform", "rand", "bernoulli")):
            self.drawn.append(str(func))
        return func(*args, **(kwargs or {}))


def test_networks_are_loaded_without_drawing_initial_ones(run: Path) -> None:
    saved = Checkpoint.load(latest(run)).model
    config, modality = configured(read_checkpoint(run))
    with RandomNumbers() as numbers:
        encoder = jepa.load(run)
        model = model_of(read_checkpoint(run), config, modality)
    assert numbers.drawn == []
    with RandomNumbers() as numbers:
        drawn = modality.encoder(config.model)
    assert numbers.drawn
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    tables = dict(encoder.named_buffers())  # positions, which no checkpoint holds
    assert tables
    assert all(torch.equal(tables[name], value) for name, value in drawn.named_buffers())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_folder_of_shards_is_read_without_the_state_of_the_optimiser(run: Path, tmp_path: Path) -> None:
    checkpoint, folder = Checkpoint.load(latest(run)), tmp_path / "shards"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = flatten(checkpoint.model, checkpoint.optimizer)
        save(tensors, storage_writer=FileSystemWriter(folder), no_dist=True)
    publish_shards(folder, replace(checkpoint, model={}, optimizer={"param_groups": []}), tmp_path / "latest.pt")
    networks = read_checkpoint(folder, mmap=True)
    assert networks.model.keys() == checkpoint.model.keys()
    assert networks.optimizer["state"] == {}
    assert Checkpoint.load(folder).optimizer["state"].keys() == checkpoint.optimizer["state"].keys()
    assert all(torch.equal(value, checkpoint.model[name]) for name, value in read_networks(folder).items())


@pytest.mark.parametrize(
    ("name", "is_own"),
    [("modalities.image.augment:draw", True), ("modalities.image.modality:partial", False), ("os:system", False)],
)
def test_functions_defined_in_the_package_of_an_installed_modality_are_known(name: str, is_own: bool) -> None:
    config = {"modality": "image", "data": {"masking": {"kind": "function", "function": name}}}
    refused = contextlib.nullcontext() if is_own else pytest.raises(CheckpointError, match=name)
    with refused, importing("a.pt", config, trust=False):
        pass


def test_functions_beside_an_installed_modality_in_a_namespace_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several installed packages may share a namespace; a regular package belongs to one."""
    for package in ("tides_shared", "tides_own"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "tides.py").write_text("from tiny import Noise\nclass Tides(Noise): pass\n")
        (tmp_path / package / "masks.py").write_text("def masks(grid, batch_size, generator): pass\n")
        (tmp_path / package / "broken.py").write_text("raise SystemExit(3)\n")
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[jepa.modalities]\n{package} = {package}.tides:Tides\n")
    (tmp_path / "tides_own" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for package, module, is_own in (
        ("tides_own", "masks", True),
        ("tides_own", "broken", False),
        ("tides_shared", "masks", False),
    ):
        name = f"{package}.{module}:masks"
        for modality in (package, f"{package}.tides:Tides"):
            config = {"modality": modality, "data": {"masking": {"kind": "function", "function": name}}}
            refused = contextlib.nullcontext() if is_own else pytest.raises(CheckpointError, match=name)
            with refused, importing("a.pt", config, trust=False):
                pass


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config | {"modality": "strange_tides:Tides"},
        lambda config: (
            config | {"data": config["data"] | {"masking": {"kind": "function", "function": "strange:masks"}}}
        ),
    ],
)
def test_code_that_a_file_names_is_imported_only_if_it_is_trusted(
    change: Callable[[Any], Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("strange", "strange_tides"):
        (tmp_path / f"{name}.py").write_text(
            "from pathlib import Path\nfrom tiny import Noise as Tides\nfrom jepa.masking import random_tokens\n"
            "Path('imported').touch()\ndef masks(grid, batch_size, generator):\n    raise ValueError('called')\n"
        )
    checkpoint = Checkpoint.load(latest(run))
    file, path = tmp_path / "strange.pt", list(sys.path)
    replace(checkpoint, config=change(checkpoint.config)).save(file)
    for loading in (jepa.load, jepa.load_modality):
        with pytest.raises(CheckpointError, match=r"would import and call strange\w*:\w+, .* pass trust=True"):
            loading(file)
    assert not Path("imported").exists()
    with contextlib.suppress(ConfigError):
        jepa.load(file, trust=True)
    assert Path("imported").exists()
    assert sys.path == path
    for name in ("strange", "strange_tides"):
        sys.modules.pop(name, None)
