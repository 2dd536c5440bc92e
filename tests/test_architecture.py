"""Imports point down, the core knows no modality, and importing it changes nothing and is cheap."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jepa

ROOT = Path(jepa.__file__).parent
# A module may import from its own layer and from those before it; a folder or a prefix stands for all of its modules.
LAYERS = (
    (
        "config",
        "schedules",
        "positions",
        "transformer",
        "distributed",
        "checkpoint",
        "shards",
        "lock",
        "run_log",
        "job_files",
        "evaluate.protocol",
        "imports",
        "samples",
    ),
    ("masking", "masking_blocks", "masking_legacy", "optim", "recipes"),
    ("encoder",),
    ("predictor",),
    ("networks",),
    ("modality",),
    ("registry", "model", "data", "matching"),
    ("loss", "sharding", "released"),
    ("saving",),
    ("train",),
    ("weights", "cost", "cost_memory", "flops", "gpus", "memory", "command"),
    ("evaluate.*", "export", "testing.*", "testing", "list_modalities", "new_modality"),
    ("report_*", "report"),
    ("sweep", "jobs", "sweep_report"),
    ("slurm_job", "slurm", "submit", "launch", "__main__", "template.*"),
)
HEAVY = ["decord", "open_clip", "sklearn", "matplotlib", "submitit", "torchvision", "tensorboard", "PIL", "scipy"]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not name.endswith("__init__"):
            yield name, path


def imports(path: Path) -> set[str]:
    """Full names that a file imports anywhere, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int:
    """Index of the layer with this module; an exact name goes before a prefix."""
    exact = [index for index, names in enumerate(LAYERS) if module in names]
    prefixed = [
        index
        for index, names in enumerate(LAYERS)
        if any(name.endswith("*") and module.startswith(name[:-1]) for name in names)
    ]
    assert exact or prefixed, f"jepa.{module} has no layer yet: give it one in this test"
    return (exact or prefixed)[0]


@pytest.mark.parametrize(("module", "path"), modules())
def test_imports_point_down(module: str, path: Path) -> None:
    known = {name for name, _ in modules()}
    for imported in imports(path):
        package, _, rest = imported.partition(".")
        assert package != "modalities", f"jepa.{module} imports {imported}: the core knows no modality"
        if package != "jepa":
            continue
        parts = rest.split(".")
        used = next((name for end in (len(parts), len(parts) - 1) if (name := ".".join(parts[:end])) in known), None)
        if used is not None:
            assert layer(used) <= layer(module), f"jepa.{module} imports jepa.{used}, which is above it"


def test_importing_the_core_is_cheap_and_changes_nothing() -> None:
    script = f"""
import json, logging, os, random, signal, sys
import rich.style  # draws a number from random for itself
import torch
def state():
    handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    return [dict(os.environ), torch.initial_seed(), torch.get_rng_state().tolist(), hash(random.getstate()), handlers,
            torch.get_num_threads(), str(torch.get_default_dtype()), len(logging.getLogger().handlers), os.getcwd()]
before, modules = state(), set(sys.modules)
import jepa
heavy = [name for name in {HEAVY} if name in set(sys.modules) - modules]
print(json.dumps({{"changed": state() != before, "heavy": heavy,
                   "modalities": [name for name in sys.modules if name.startswith("modalities")]}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"changed": False, "heavy": [], "modalities": []}


def test_the_public_surface_is_this_and_no_more() -> None:
    assert jepa.__all__ == ["load", "load_modality"]
    assert all(hasattr(jepa, name) for name in jepa.__all__)
