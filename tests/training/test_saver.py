"""Checkpoints are written in the background: a save holds the values of its step, and a failed one loses nothing."""

from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from full_disk import file_size_limit
from small_runs import small

from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.file import read_step
from jepa.disk import WriteError
from jepa.distributed import World
from jepa.optim import OptimConfig, adamw
from jepa.training.networks import initial_model
from jepa.training.saver import Saver

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture
def saver(tmp_path: Path) -> Saver:
    config, modality = small("model.size={width: 24, depth: 1, heads: 2}")
    model = initial_model(config, modality, WORLD)
    return Saver(tmp_path, {}, model, adamw(model, OptimConfig()), WORLD)


def test_a_save_ignores_later_changes_of_the_weights(saver: Saver, tmp_path: Path) -> None:
    expected = {name: value.clone() for name, value in saver.model.state_dict().items()}
    with saver.finishing():
        saver.save(1, 0.0)
        with torch.no_grad():
            for parameter in saver.model.parameters():
                parameter.zero_()
    saved = Checkpoint.load(latest(tmp_path)).model
    assert all(torch.equal(saved[name], value) for name, value in expected.items())


@pytest.mark.parametrize("raising", [lambda saver: saver.check(), lambda saver: saver.save(3, 0.0)])
def test_a_failed_save_is_an_error_of_the_next_step_or_save_and_keeps_the_last_checkpoint(
    raising: Callable[[Saver], None], saver: Saver, tmp_path: Path
) -> None:
    saver.save(1, 0.0)
    sentence = rf"latest\.pt cannot be written: .* the last checkpoint stays at {latest(tmp_path)}\. Free some space"
    with pytest.raises(WriteError, match=sentence), saver.finishing():
        saver.wait()
        saver.check()
        with file_size_limit(1000):
            saver.save(2, 0.0)
            assert saver.unfinished is not None
            wait([saver.unfinished])
        raising(saver)
    assert read_step(latest(tmp_path)) == 1
    assert [path.name for path in latest(tmp_path).parent.iterdir()] == ["latest.pt"]


def test_a_save_that_fails_beside_another_error_is_told(
    saver: Saver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="a defect"), file_size_limit(1000), saver.finishing():
        saver.save(1, 0.0)
        raise RuntimeError("a defect")
    assert "warning: the checkpoint in progress was lost as well: " in capsys.readouterr().err
