"""A dry run reports exact parameters and FLOPs, and memory close to that of a real step."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_products import FastProducts
from places import SUPPORT
from small_runs import small
from tiny import Noise

from jepa.config.recipes import read_recipe
from jepa.cost.describe import describe, loader_lines, warnings
from jepa.cost.flops import run_flops
from jepa.cost.gpus import GPUS, RESERVED, Gpu
from jepa.cost.process_memory import (
    Allocation,
    count,
    ddp_memory,
    fsdp_memory,
    networks,
    process_memory,
    shard_bytes,
    trained,
)
from jepa.cost.step_memory import LiveBytes, Usage
from jepa.data import DataError
from jepa.distributed import World
from jepa.launch import main, resolve
from jepa.train import train

BF16 = "compute.precision=bf16"  # also on processors without it: its memory is the same
OPTIONS = [
    [BF16],
    ["compute.precision=fp32"],
    [BF16, "compute.activation_checkpointing=true", "optim.batch_size=64"],
    [BF16, "optim.accumulate=4", "optim.batch_size=96", "optim.max_gradient_norm=1", "optim.optimizer=muon"],
    [BF16, "data.sets=2", "loss.regulariser=sigreg", "model.projector=64", "stages.0.predict={latent: 1, pixels: 1}"],
]


def estimated(*overrides: str) -> int:
    """Bytes of a process on a CPU, as a dry run estimates them."""
    return process_memory(*small(*overrides), Allocation(processes=1, gpus=0))["ddp"].total


def test_i_jepa_vit_h_14_has_the_published_parameters_and_gpu_hours_in_the_published_range(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa.cost.flops.DRAWS", 1)
    profile = ["--slurm", "a100", "--nodes", "2", "--gpus", "8", "--time", "30"]
    assert main(["--modality", "image", "--config", "image/vith14_ijepa", "--dry-run", *profile]) == 0
    printed = capsys.readouterr().out
    width, predictor = 1280, 384
    block = 12 * width**2 + 13 * width  # query, key, value, projection, two layers of four times the width, two norms
    encoder = (3 * 14 * 14 + 1) * width + 32 * block + 2 * width
    assert encoder + 256 * width == 630_762_240  # with the table of positions, which the published count includes
    narrow = 12 * (12 * predictor**2 + 13 * predictor) + 2 * predictor
    ends = (width + 1) * predictor + predictor + (predictor + 1) * width  # in, mask token, out
    assert f"encoder {encoder:,}, predictor {narrow + ends:,}\n" in printed
    assert "187,500 steps, 384,000,000 samples" in printed
    hours = next(line.split()[-4] for line in printed.splitlines() if line.startswith("  A100 80 GB"))
    assert 400 < float(hours) < 1200  # "under 72 hours on 16 A100"
    assert "end before" not in printed  # 21 attempts of 30 hours


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
def test_the_estimate_equals_the_tensors_of_the_real_loop(options: list[str], tmp_path: Path) -> None:
    config, modality = small(*options)
    with FastProducts(), LiveBytes() as counted:
        train(replace(config, run_dir=tmp_path / "run"), modality, World(0, 1, torch.device("cpu")))
    assert estimated(*options) == pytest.approx(counted.at_peak.total(), rel=0.05)


RESIDENT = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from small_runs import small
from jepa.distributed import World
from jepa.train import train

def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

torch.set_num_threads(1)
world, folder, options = World(0, 1, torch.device("cpu")), Path(sys.argv[2]), json.loads(sys.argv[3])
config, modality = small(*options, "optim.batch_size=8")
train(replace(config, run_dir=folder / "first"), modality, world)  # imports, threads, kernels compiled for these widths
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
config, modality = small(*options)
train(replace(config, run_dir=folder / "second"), modality, world)
print(resident("VmHWM") - before)
"""


# Large enough that the constant 30 MB of bf16 kernels do not matter. The first has the precision that is fast here.
LARGER = [
    ["optim.batch_size=128"],
    pytest.param(["optim.batch_size=128", "compute.precision=fp32"], marks=pytest.mark.soak),
    pytest.param(
        [BF16, "optim.batch_size=256", "model.size.depth=12", "compute.activation_checkpointing=true"],
        marks=pytest.mark.soak,
    ),
]


@pytest.mark.parametrize("options", LARGER, ids=" ".join)
def test_the_estimate_is_within_15_percent_of_the_memory_of_a_training_process(
    options: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RESIDENT, str(SUPPORT), str(tmp_path), json.dumps(options)]
    # What is freed goes back to the system at once, so that the process is as large as what it uses.
    given = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **given})
    assert done.returncode == 0, done.stderr
    assert estimated(*options) == pytest.approx(int(done.stdout.split()[-1]), rel=0.15)


def test_activations_in_bf16_grow_linearly_with_tokens_on_gpus_and_faster_on_cpus() -> None:
    def growth(gpus: int) -> float:
        heads = ("model.size.heads=24", "model.size.depth=3", "optim.batch_size=4", "compute.precision=bf16")
        few, many = (
            process_memory(*small(grid, *heads), Allocation(1, gpus))["ddp"].activations
            for grid in ("data.grid=[8,12]", "data.grid=[16,24]")
        )
        return many / few

    assert growth(gpus=1) == pytest.approx(4, rel=0.02)
    assert growth(gpus=0) > 5


def test_shard_bytes_are_those_of_rank_0() -> None:
    model = networks(*small())
    for processes in (1, 2, 3, 5):
        parts = [torch.empty(one.shape).chunk(processes)[0].numel() for one in model.parameters()]  # as FSDP
        assert shard_bytes(model.parameters(), processes) == 4 * sum(parts)
    assert shard_bytes(model.parameters(), 1) == 4 * count(model.parameters())


def test_fsdp_memory_shrinks_with_processes_and_its_sums_are_exact() -> None:
    config, modality = small()
    model = networks(config, modality)
    learned, whole = count(trained(model)), count(model.parameters())
    usage = Usage(weights=4 * whole + 100, gradients=0, optimiser=8 * learned, activations=5000, most_activations=7000)
    ddp, fsdp = ddp_memory(usage, model, 4), fsdp_memory(usage, model, 4, config, "cuda")
    assert (ddp.gradients, ddp.buckets) == (4 * learned, 0)
    assert ddp.total == 4 * whole + 100 + 8 * learned + 5000 + 4 * learned
    block = 12 * 192**2 + 13 * 192
    outside = whole - 2 * 5 * block - 2 * (12 * 96**2 + 13 * 96)
    assert fsdp.weights == 100 + shard_bytes(model.parameters(), 4)
    assert (fsdp.gradients, fsdp.activations) == (shard_bytes(trained(model), 4), 7000)
    assert fsdp.optimiser == 2 * shard_bytes(trained(model), 4) + 4 * len(list(trained(model)))  # a step count each
    assert (fsdp.copies, fsdp.buckets) == (2 * (2 * block + outside), 4 * block)
    assert fsdp_memory(usage, model, 8, config, "cuda").total < fsdp.total < ddp.total


def test_warnings_name_gpus_that_are_too_small_too_slow_or_unused() -> None:
    config, modality = small("compute.parallel=fsdp")
    memory = process_memory(config, modality, Allocation(4, 4))
    flops = 4 * 3600 * 0.3 * 312e12 * 10  # ten hours on four A100
    assert warnings(config, memory, Allocation(4, 4, hours=11), flops) == []
    assert warnings(config, memory, Allocation(4, 4, hours=2, attempts=6), flops) == []
    [slow] = warnings(config, memory, Allocation(4, 4, hours=2, attempts=3), flops)
    assert slow == "3 attempts of 2 h end before the run does on A100 40 GB (10.0 h), A100 80 GB (10.0 h)"
    [idle] = warnings(config, memory, Allocation(4, 8), flops)
    assert idle == "4 processes use 4 of 8 GPUs"
    large = {"fsdp": replace(memory["fsdp"], activations=50 << 30), "ddp": memory["ddp"]}
    [small_gpu] = warnings(config, large, Allocation(4, 4), flops)
    assert small_gpu.startswith("52.0 GiB with fsdp do not fit A100 40 GB; compute.parallel=ddp does")
    large["ddp"] = large["fsdp"]
    assert "compute.activation_checkpointing=true or a" in warnings(config, large, Allocation(4, 4), flops)[0]


def test_gpu_hours_are_flops_divided_by_peak_and_utilisation() -> None:
    gpu = Gpu("one", memory=10 + RESERVED, bf16=1e12, fp32=1e11)
    assert gpu.hours(3600 * 0.3 * 1e12, bf16=True) == pytest.approx(1)
    assert gpu.hours(3600 * 0.3 * 1e12, bf16=False) == pytest.approx(10)
    assert (gpu.holds(10), gpu.holds(11)) == (True, False)
    assert [one.name for one in GPUS] == ["A100 40 GB", "A100 80 GB", "H100 80 GB", "H200 141 GB"]


def test_recomputed_activations_cost_flops_and_save_memory() -> None:
    plain, again = small(), small("compute.activation_checkpointing=true")
    assert 1.1 * run_flops(*plain) < run_flops(*again) < 1.4 * run_flops(*plain)
    assert estimated("compute.activation_checkpointing=true") < 0.7 * estimated()


DENSE = ("model.levels=[2, 4, 7]", "model.target_layers=[2, 4, 7]", "model.target_join=each", "loss.visible=distance")


@pytest.mark.parametrize("more", [("stages.0.predict={latent: 1, pixels: 1}",), DENSE])
def test_flops_of_deep_networks_are_those_of_all_their_blocks(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = small(
        "model.size={width: 48, depth: 7, heads: 3}",
        "model.predictor={width: 24, depth: 4, heads: 2, blocks: joint}",
        *("compute.activation_checkpointing=true", "data.sets=2", *more),
    )
    by_parts = run_flops(*deep)
    monkeypatch.setattr("jepa.cost.flops._FEW_BLOCKS", 11)
    assert run_flops(*deep) == by_parts


def test_a_report_for_cpus_omits_gpus_and_an_indivisible_batch_is_refused() -> None:
    config, modality = small()
    assert "GPU" not in describe(config, modality, Allocation(processes=2, gpus=0))
    with pytest.raises(ValueError, match=r"optim\.batch_size: 32 .* 5 processes"):
        describe(config, modality, Allocation(5, 5))


def test_a_report_says_how_much_memory_the_loader_takes_on_a_node() -> None:
    config, image = resolve("image", {}, ["data.source=scenes", "optim.batch_size=512", "compute.prefetch_mb=150"])
    title, _, batches, cached = loader_lines(config, image, Allocation(16, 16, nodes=2))
    assert "4 workers prepare 4 batches each, 4.6 MiB a batch" in title
    assert batches.split()[-2:] == [f"{32 * 3 * 224**2 * 16 * processes / 2**30:.2f}" for processes in (1, 8)]
    assert cached.split()[-2:] == ["2.00", "16.00"]
    assert loader_lines(config, image, Allocation(1, 0)) == []


def test_without_data_the_modality_must_know_the_shape_of_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa.cost.flops.DRAWS", 1)

    class Absent(Noise):
        def dataset(self, split: Any) -> Any:
            raise FileNotFoundError("no such folder")

    config, _ = small()
    with pytest.raises(DataError, match=r"data: .* no such folder"):
        run_flops(config, Absent(config.data))
    recipe = read_recipe("image/vith14_ijepa")
    smaller = ["model.size=vit_nano", "optim.batch_size=8", "model.predictor={width: 32, depth: 1, heads: 2}"]
    config_image, image = resolve("image", recipe, smaller)
    assert not Path("imagenet").exists()
    assert math.isfinite(run_flops(config_image, image))
