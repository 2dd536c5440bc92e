"""Checkpoints: a save in the background holds the values of its step, a failed one loses nothing, and some are kept."""

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_disk import file_size_limit
from small_runs import small

import jepa
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import find_checkpoint, kept, kept_steps, read_step
from jepa.disk import WriteError
from jepa.distributed import World
from jepa.optim import OptimConfig, build_optimizer
from jepa.train import train
from jepa.training.networks import initial_model
from jepa.training.saver import Saver
from jepa.weights.export import main as export
from jepa.weights.load import read_networks

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture
def saver(tmp_path: Path) -> Saver:
    config, modality = small("model.size={width: 24, depth: 1, heads: 2}")
    model = initial_model(config, modality, WORLD)
    return Saver(tmp_path, {}, model, build_optimizer(model, OptimConfig()), WORLD)


def test_a_save_ignores_later_changes_of_the_weights(saver: Saver, tmp_path: Path) -> None:
    expected = {name: value.clone() for name, value in saver.model.state_dict().items()}
    with saver.finishing():
        saver.save(1, 0.0)
        with torch.no_grad():
            for parameter in saver.model.parameters():
                parameter.zero_()
    saved = Checkpoint.load(latest(tmp_path)).model
    assert all(torch.equal(saved[name], value) for name, value in expected.items())


def test_the_state_of_an_optimiser_with_other_groups_is_refused(saver: Saver, tmp_path: Path) -> None:
    saver.save(1, 0.0)
    saver.wait()
    other = Saver(tmp_path, {}, saver.model, build_optimizer(saver.model, OptimConfig(optimizer="muon")), WORLD)
    with pytest.raises(CheckpointError, match=r"latest\.pt: the optimiser's state is of other groups of weights"):
        other.restore(latest(tmp_path))


@pytest.mark.parametrize("raising", [lambda saver: saver.check(), lambda saver: saver.save(3, 0.0)])
def test_a_failed_save_is_an_error_of_the_next_step_or_save_and_keeps_the_last_checkpoint(
    raising: Callable[[Saver], None], saver: Saver, tmp_path: Path
) -> None:
    saver.save(1, 0.0)
    saver.wait()
    saver.check()
    with file_size_limit(1000):
        saver.save(2, 0.0)
        assert saver.unfinished is not None
        wait([saver.unfinished])
    sentence = rf"latest\.pt cannot be written: .* the last checkpoint stays at {latest(tmp_path)}\. Free some space"
    with pytest.raises(WriteError, match=sentence), saver.finishing():
        raising(saver)
    assert read_step(latest(tmp_path)) == 1
    assert [path.name for path in latest(tmp_path).parent.iterdir()] == ["latest.pt"]


def test_a_save_that_fails_beside_another_error_is_told(
    saver: Saver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        with file_size_limit(1000), saver.finishing():
            saver.save(1, 0.0)
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        body()
    assert "warning: the checkpoint in progress was lost as well: " in capsys.readouterr().err


def test_the_checkpoints_of_every_nth_step_stay_and_everything_reads_them(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    size = "model.size={width: 24, depth: 1, heads: 2}"
    config, modality = small("modality=tiny:Noise", size, "steps=5", "checkpoint_every=4", "keep_every=2")
    config = replace(config, run_dir=run_dir)
    assert train(config, modality, WORLD)
    names = {path.name: path.stat().st_nlink for path in latest(run_dir).parent.iterdir()}
    assert names == {"latest.pt": 1, "step_2.pt": 1, "step_4.pt": 1}  # links of latest.pt until it was replaced
    assert [read_step(find_checkpoint(run_dir, step)) for step in (None, 2, 4, 5)] == [5, 2, 4, 5]

    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; steps with one: 2, 4, 5 \(the latest\)"):
        find_checkpoint(run_dir, 3)
    middle = Checkpoint.load(kept(run_dir, 2)).model
    for name, value in jepa.load(run_dir, step=2).state_dict().items():
        assert torch.equal(value, middle[f"target_encoder.{name}"])
    assert export([str(run_dir), str(tmp_path / "two.pt"), "--step", "2"]) == 0
    assert read_step(tmp_path / "two.pt") == 2
    assert set(read_networks(kept(run_dir, 2))) == set(middle)

    # A run goes back if an earlier checkpoint becomes the latest, and ends as before.
    ended = Checkpoint.load(latest(run_dir)).model
    shutil.copy(kept(run_dir, 2), latest(run_dir))
    assert train(replace(config, keep_every=None), modality, WORLD)
    assert all(torch.equal(value, ended[name]) for name, value in Checkpoint.load(latest(run_dir)).model.items())
    assert kept_steps(run_dir) == [2, 4]


def test_where_there_are_no_hard_links_a_checkpoint_is_copied(
    saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr("os.link", no_link)
    saver.save(1, 0.0, keep=True)
    saver.wait()
    assert kept(tmp_path, 1).read_bytes() == latest(tmp_path).read_bytes()
    assert len(list(latest(tmp_path).parent.iterdir())) == 2
