"""benchmarks.gpu runs without a GPU at toy size; on a GPU, a step keeps what the docs promise of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.steps.cases import GPU_CASES, Ours, Precision
from jepa import train as training
from jepa.checkpoint import Checkpoint, latest
from jepa.cost.describe import Allocation
from jepa.cost.process_memory import process_memory
from jepa.distributed import World

CUDA = World(0, 1, torch.device("cuda"))
TOY = GPU_CASES["toy"]


def on_gpu(test: Any) -> Any:
    """Mark a test that needs a GPU, and skip it without one."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")(test))


def of_case(name: str, precision: Precision = "bf16", *settings: str) -> Ours:
    config, modality = GPU_CASES[name].build(precision, settings)
    return Ours(config, modality, GPU_CASES[name].batch(modality), CUDA)


def test_toy_size_runs_on_cpus(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--models", "toy", "--rounds", "1", "--steps", "1", "--json", str(file)]
    gpu.main([*words, "--scratch", str(tmp_path / "runs")])
    names = [one["name"] for one in json.loads(file.read_text())["results"]]
    assert names == ["toy, ours", "toy, ours with the loader"]
    assert file.with_suffix(".md").read_text().count("\n| toy") == 2


def test_time_without_kernels_counts_overlapping_kernels_once() -> None:
    assert gpu.idle_of([(0, 4), (1, 2), (3, 5), (8, 10)]) == pytest.approx(0.3)


@on_gpu
def test_a_step_changes_every_network_and_waits_for_nothing() -> None:
    ours = of_case("toy")
    ours.step()  # the first one builds handles and the state of the optimiser
    before = [parameter.clone() for parameter in ours.model.parameters()]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    changed = [not torch.equal(one, other) for one, other in zip(before, ours.model.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)


@on_gpu
def test_bf16_and_fp32_agree() -> None:
    losses = [float(of_case("toy", precision).backward()) for precision in ("bf16", "fp32")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@on_gpu
def test_peak_memory_is_what_the_dry_run_says() -> None:
    ours = of_case("ijepa_base", "bf16", "optim.batch_size=128")
    ours.step()
    torch.cuda.reset_peak_memory_stats()
    ours.step()
    config, modality = GPU_CASES["ijepa_base"].build("bf16")
    estimate = process_memory(config, modality, Allocation(processes=1, gpus=1))["ddp"].total
    assert 0.8 < torch.cuda.max_memory_allocated() / estimate < 1.25


@on_gpu
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> dict[str, torch.Tensor]:
        lengths = ["steps=4", "checkpoint_every=2", "log_every=1", "compute.workers=1", f"run_dir={tmp_path / name}"]
        config, modality = TOY.build("bf16", [*TOY.loaded, *lengths, f"compute.device={CUDA.device.type}"])
        training.train(config, modality, CUDA)
        return Checkpoint.load(latest(config.run_dir)).model

    whole, original, calls = run("whole"), training.backward, iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "backward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("resumed")
    resumed = run("resumed")
    for name, weight in whole.items():  # kernels of GPUs may add in another order
        torch.testing.assert_close(resumed[name], weight, rtol=1e-3, atol=1e-5)
