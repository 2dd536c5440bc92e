"""Two real processes compute what one would: gradients of the regularisers, and a whole training run."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.distributed import World, join
from jepa.loss import LossConfig, regularisation
from jepa.model import Prediction
from jepa.run_log import read_metrics

ROWS = torch.randn(12, 6, generator=Generator().manual_seed(1))
REGULARISERS = ("vicreg", "sigreg")


def gradient(kind: str, world: World) -> Tensor:
    """Gradient of a regulariser in the weights of a linear layer, on this process's share of the rows."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    share = len(ROWS) // world.size
    rows = ROWS[world.rank * share : (world.rank + 1) * share]
    forward = world.data_parallel(layer)
    features = forward(rows)
    config = LossConfig(regulariser=kind, regulariser_weight=1.0)
    regularisation([Prediction({}, features)], config, Generator().manual_seed(2)).backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found = {kind: gradient(kind, world) for kind in REGULARISERS}
    found["mean"] = world.mean(torch.tensor([1.0 + rank]))
    found["any"] = torch.tensor([world.any(rank == 1), world.any(False)])
    torch.save(found, f"{folder}/{rank}.pt")
    world.leave()


def test_regularisers_see_the_global_batch_and_have_its_gradient(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for kind in REGULARISERS:
            torch.testing.assert_close(found[kind], gradient(kind, World(0, 1, torch.device("cpu"))))
        assert found["mean"].item() == 1.5
        assert found["any"].tolist() == [True, False]


def test_two_processes_with_half_the_batch_each_train_as_one_with_the_whole(photos: Path, tmp_path: Path) -> None:
    settings = f"""
        data.source=folder data.root={photos} data.image_size=32 data.patch_size=4
        data.masking.kind=block data.masking.targets=2 data.views=2 curriculum.latent_from=0.5
        model.size.width=48 model.size.depth=2 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
        model.predictor.depth=2 model.projector=16 optim.batch_size=8 optim.peak_lr=1e-3 optim.warmup=0
        steps=6 log_every=1 compute.precision=fp32 evaluate.enabled=false
    """.split()
    alone, together = tmp_path / "alone", tmp_path / "together"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["jepa.launch", "--modality", "image", "--run-dir", str(together), *settings]
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert launch.main(["--modality", "image", "--run-dir", str(alone), *settings]) == 0

    lines = read_metrics(alone), read_metrics(together)
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "gradient_norm"):
        one, two = ([line[key] for line in run] for run in lines)
        assert two == pytest.approx(one, rel=1e-4), key
    assert lines[0][0]["loss"] != pytest.approx(lines[0][-1]["loss"], rel=1e-2)  # it did learn
    weights = [Checkpoint.load(latest(run)).model for run in (alone, together)]
    for name, value in weights[0].items():
        # Adam makes steps of like size of gradients that are nothing but rounding, as those of key biases are.
        torch.testing.assert_close(weights[1][name], value, atol=2e-4, rtol=1e-3, msg=name)


def test_one_process_needs_no_group_and_cuda_is_not_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join("cpu")
    assert (world.rank, world.size, world.is_main, world.any(True)) == (0, 1, True, True)
    assert not dist.is_initialized()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert join("auto").device.type == "cpu"
    with pytest.raises(ValueError, match=r"compute\.device: cuda was asked for, but torch sees no CUDA device"):
        join("cuda")
