"""What the host does in an ordinary training step, counted by torch's profiler in two real processes."""

import json
import os
from pathlib import Path
from typing import Any

import fork_server
import torch
from torch.profiler import ProfilerActivity, profile

import jepa.train
import jepa.training.signs
from jepa import launch

FIRST, STEPS = 3, 4  # DDP arranges its buckets in the first steps
SETTINGS = """
    steps=10 log_every=10 checkpoint_every=10 optim.batch_size=8 optim.max_gradient_norm=1
    compute.workers=1 compute.deterministic=true
    model.size.width=48 model.size.depth=2 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
    evaluate.enabled=false evaluate.report=false
"""


def profiled(folder: str, run_dir: str) -> None:
    """Train, and save how often the operations of the middle steps were called."""
    backward, profiler = jepa.train.backward, profile(activities=[ProfilerActivity.CPU])
    found: dict[str, int] = {"signs": 0}
    measure = jepa.training.signs.collapse_signs

    def between_steps(config: Any, step: int, forward: Any, batch: Any) -> Any:
        if step == FIRST:
            assert torch.are_deterministic_algorithms_enabled()
            profiler.start()
        if step == FIRST + STEPS:
            profiler.stop()
            found.update({event.key: event.count for event in profiler.key_averages()})
            found["parameters"] = sum(weight.requires_grad for weight in forward.parameters())
            found["buckets"] = len(forward._get_ddp_logging_data()["bucket_sizes"].split(","))
        return backward(config, step, forward, batch)

    def counted(tokens: torch.Tensor) -> Any:
        found["signs"] += 1
        return measure(tokens)

    jepa.train.backward, jepa.training.signs.collapse_signs = between_steps, counted
    status = launch.main(["--modality", "tiny:Noise", "--run-dir", run_dir, *SETTINGS.split()])
    assert not torch.are_deterministic_algorithms_enabled()
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found))
    raise SystemExit(status)


def test_a_step_reads_nothing_from_the_device_and_exchanges_its_gradient_and_one_set_of_flags(tmp_path: Path) -> None:
    done = fork_server.run_group(2, "call", __file__, "profiled", str(tmp_path), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    found, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (found["signs"], other["signs"]) == (1, 0)  # measured for the log, which rank 0 writes
    assert found["aten::_fused_adamw_"] >= STEPS
    # On CPUs, fused AdamW reads its counter of steps, once per parameter; on GPUs the device reads it.
    assert found["aten::item"] == found["aten::_local_scalar_dense"] == STEPS * found["parameters"]
    assert not {"aten::is_nonzero", "aten::nonzero", "aten::equal"} & found.keys()
    collectives = {name: count for name, count in found.items() if name.startswith("c10d::")}
    assert collectives == {"c10d::allreduce_": STEPS * (found["buckets"] + 1)}
