"""Loading trained networks has no side effects and reads a file once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small

import jepa
from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.file import read_step
from jepa.checkpoint.released import read_networks
from jepa.distributed import World
from jepa.train import train


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
