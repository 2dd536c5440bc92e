"""Memory per process of distributed training: all weights in each process (DDP), or a shard of them (FSDP2).

    python -m benchmarks.parallel --json benchmarks/results/parallel.json [--size vit_small] [--processes 2]

On CPUs (gloo), on noise images: three steps with 2 samples per process, so that the training state dominates. Bytes of
parameters, gradients and optimiser state are exact; the peak is the resident memory of a process, which includes torch
itself (about `started`). Freed memory returns to the system at once (MALLOC_MMAP_THRESHOLD_), so that the peak does not
include what the C library would keep.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import provenance
from jepa.data import seeded
from jepa.distributed import join, local
from jepa.launch import resolve
from jepa.loss import prediction_loss
from jepa.optim import build_optimizer
from jepa.training.networks import initial_model

_SETTINGS = ("data.source=scenes", "data.image_size=64", "data.patch_size=8", "compute.precision=fp32")
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
_COLUMNS = ("parameters", "gradients", "optimiser", "started", "peak")


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list[Tensor]]:
    """Tensors that training keeps between steps: parameters of all networks, gradients, optimiser state."""
    parameters = list(model.parameters())
    return {
        "parameters": [parameter.detach() for parameter in parameters],
        "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
        "optimiser": [value for state in optimizer.state.values() for value in state.values() if value.ndim],
    }


def bytes_held(tensors: Iterable[Tensor]) -> int:
    """Bytes of this process's shards of tensors."""
    return sum(local(tensor).nbytes for tensor in tensors)


def measure(parallel: str, size: str, folder: Path) -> None:
    """Run one of the processes, and write its memory to a file of the folder."""
    settings = [*_SETTINGS, f"model.size={size}", f"compute.parallel={parallel}", "run_dir=unused"]
    config, modality = resolve("image", {}, settings)
    world = join("cpu")
    started = _peak()
    model = initial_model(config, modality, world)
    optimizer = build_optimizer(model, config.optim)
    forward = world.data_parallel(model)
    held: dict[str, int] = {}
    for step in range(3):
        images = torch.randn(2, 3, 64, 64, generator=seeded(step, world.rank))
        output = forward([images], modality.sample_masks(2, seeded("masks", step)))
        prediction_loss(output.predictions, config.loss, {"latent": 1.0}).backward()
        optimizer.step()
        held = {name: bytes_held(tensors) for name, tensors in training_state(model, optimizer).items()}
        optimizer.zero_grad(set_to_none=True)
    held |= {"started": started, "peak": _peak()}
    (folder / f"{world.rank}.json").write_text(json.dumps(held))
    world.leave()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure both, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    parser.add_argument("--size", default="vit_small")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("PARALLEL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], arguments.size, Path(arguments.measure[1]))
        return
    held = {parallel: _processes(parallel, arguments) for parallel in ("ddp", "fsdp")}
    result: dict[str, Any] = {
        **provenance.provenance("benchmarks.parallel"),
        "size": arguments.size,
        "processes": arguments.processes,
        "megabytes": {
            parallel: {name: [round(process[name] / 1e6, 1) for process in processes] for name in _COLUMNS}
            for parallel, processes in held.items()
        },
    }
    provenance.write(arguments.json, result, _markdown(result))


def _processes(parallel: str, arguments: argparse.Namespace) -> list[dict[str, int]]:
    """Memory of every process, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.processes), "-m"]
        measured = ["--json", "unused", "--size", arguments.size, "--measure", parallel, folder]
        line = [sys.executable, *torchrun, "benchmarks.parallel", *measured]
        subprocess.run(line, check=True, env=os.environ | _ENVIRONMENT)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(arguments.processes)]


def _markdown(result: dict[str, Any]) -> str:
    rows = [
        [parallel, *(", ".join(f"{value:.1f}" for value in columns[name]) for name in _COLUMNS)]
        for parallel, columns in result["megabytes"].items()
    ]
    what = f"Megabytes per process, {result['size']}, {result['processes']} processes."
    return f"{provenance.heading(result)} {what}\n\n{provenance.table(['', *_COLUMNS], rows)}"


if __name__ == "__main__":
    main()
