"""What the host does in an ordinary training step: counted by torch's profiler in two real processes, and on a device
without data, where copies from the host show.
"""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import jepa.train
import jepa.training.signs
from jepa import launch
from jepa.config.recipes import read_recipe
from jepa.cost.flops import local_views, networks
from jepa.data import Batch
from jepa.data.masks import group_masks
from jepa.plugins.registry import modality_class
from jepa.settings.resolve import resolve

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


LEVELS = ["data.root=/unused", "model.size={width: 48, depth: 4, heads: 2}", "optim.batch_size=8"]
LEVELS += ["model.levels=[1,2,3,4]", "model.target_layers=[1,2,3,4]", "model.predictor.depth=2"]


class HostCopies(TorchDispatchMode):
    """Collects the places that copy a tensor of the host to the device without data."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {one.device.type for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor) and one.ndim}
        copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        if copies and "cpu" in devices and result.device.type == "meta" and not (kwargs or {}).get("non_blocking"):
            self.places.append(str(func))
        return result


@pytest.mark.parametrize(
    ("modality_name", "recipe", "overrides"),
    [
        ("image", "image", []),
        ("image", "image", ["loss.regulariser=sigreg", "data.local_views=2", "stages=[{predict: {views: 1}}]"]),
        ("image", "image/vith14_ijepa", ["data.root=/unused", "model.size=vit_nano"]),
        ("video", "video", []),
        ("video", "video/vitl16_vjepa2_1", LEVELS),
        ("image-text", "image_text/tiny", []),
    ],
)
def test_a_step_copies_nothing_from_the_host(
    modality_name: str, recipe: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU makes the host wait for a copy of a number or a list, which the CPU does not show."""
    found, made = HostCopies(), torch.tensor

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = made(*args, **kwargs)
        found.places += ["torch.tensor"] if tensor.device.type == "meta" else []
        return tensor

    config, modality = resolve(modality_name, read_recipe(recipe, modality_class(modality_name)), overrides)
    model = networks(config, modality)
    view, local = tree_map(
        lambda leaf: torch.empty(2, *leaf.shape, dtype=leaf.dtype, device="meta"),
        (modality.example_loader_view(), local_views(modality)),
    )
    masks = [one[slice(2)].to("meta") for one in group_masks(modality, 0, 0, config.optim.batch_size)]
    batch = Batch([view] * modality.views, masks, [], local)
    monkeypatch.setattr("torch.tensor", noted)
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())  # this device has none
    with found:
        jepa.train.backward(config, config.steps - 1, model, batch)
    assert found.places == []
