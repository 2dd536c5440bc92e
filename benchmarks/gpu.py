"""Step time, model-FLOPs utilisation and memory on GPUs, against the dry run's estimate and the official code.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json [--models ijepa_huge] [--official-ijepa PATH]
    torchrun --nproc-per-node 8 -m benchmarks.gpu --json FILE.json     # every process has the batch of its model

Each model: the step on data that lie on the device; the peak memory beside what `--dry-run` says; the share of the time
without a running kernel; and the training loop as a user starts it, with its loader (generated pictures, or --data).
Utilisation: FLOPs of the model, without recomputed ones, over those that the data sheet promises; beside it, over those
of a large matrix product measured here. --official-ijepa and --official-vjepa: checkouts of facebookresearch/ijepa and
jepa, whose steps are measured at the same sizes in one process. --device cpu --models toy shows that the script works.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import provenance
from benchmarks.steps.cases import GPU_CASES, Method, Ours
from benchmarks.steps.measure import MatrixProduct, spread
from benchmarks.steps.official import Official
from jepa.cost.describe import Allocation
from jepa.cost.flops import sample_flops
from jepa.cost.gpus import GPUS
from jepa.cost.process_memory import process_memory
from jepa.distributed import World, join
from jepa.train import train
from jepa.training.log import read_metrics

_HEADINGS = (
    *("", "ms a step", "samples a second and process", "TFLOP a step", "of the data sheet", "of the matrix product"),
    *("peak GiB", "dry run, GiB", "without kernels"),
)


def measure(name: str, options: argparse.Namespace, world: World) -> list[dict[str, Any]]:
    """Our step, the training loop with its loader, and the official step of a model."""
    case = GPU_CASES[name]
    extra = [f"compute.device={world.device.type}", *options.overrides]
    config, modality = case.build(options.precision, [*extra, f"optim.batch_size={case.batch_size * world.size}"])
    uncheckpointed, _ = case.build(options.precision, [*extra, "compute.activation_checkpointing=false"])
    flops = sample_flops(uncheckpointed, modality, config.stage(0).weights) * case.batch_size
    allocation = Allocation(processes=world.size, gpus=world.size if world.device.type == "cuda" else 0)
    estimate = process_memory(config, modality, allocation)[config.compute.parallel].total
    product = MatrixProduct(options.precision, world.device, 8192 if world.device.type == "cuda" else 512)
    seconds = timed(product.step, options.rounds, options.steps, world)
    head = {"flops": flops, "matrix_rate": product.flops / median(seconds), "batch_size": case.batch_size}
    ours = Ours(config, modality, case.batch(modality), world)
    results = [{"name": f"{name}, ours", **head, "estimate": estimate, **of_step(ours, options, world)}]
    checkout = options.official_vjepa if case.modality == "video" else options.official_ijepa
    if checkout is not None and world.size == 1:
        official = Official(ours, options.precision, checkout)
        del ours
        results.append({"name": f"{name}, official code", **head, **of_step(official, options, world)})
        del official
    seconds = of_loop(name, options, world)
    results.append({"name": f"{name}, ours with the loader", **head, "seconds": seconds})
    return results


def of_step(method: Method, options: argparse.Namespace, world: World) -> dict[str, Any]:
    """Time, peak memory and share without kernels of a step."""
    on_gpu = world.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(method.step, options.rounds, options.steps, world)
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    return {"seconds": seconds, "peak": peak, "idle": idle_share(method.step, 3) if on_gpu else None}


def timed(call: Callable[[], object], rounds: int, steps: int, world: World) -> list[float]:
    """Seconds of a call in every round of several, after a warm-up; the host waits for the device between rounds."""
    for _ in range(3):
        call()
    found = []
    for _ in range(rounds):
        synchronise(world)
        started = time.perf_counter()
        for _ in range(steps):
            call()
        synchronise(world)
        found.append((time.perf_counter() - started) / steps)
    return found


def synchronise(world: World) -> None:
    """Wait for all work of the device."""
    if world.device.type == "cuda":
        torch.cuda.synchronize()


def idle_share(call: Callable[[], object], steps: int) -> float:
    """Share of the time, from the first kernel to the end of the last, in which no kernel runs: 0..1."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            call()
        torch.cuda.synchronize()
    found = [(event.time_range.start, event.time_range.end) for event in profiler.events() or ()]
    return idle_of(sorted(found))


def idle_of(spans: Sequence[tuple[float, float]]) -> float:
    """Share of the time that no span covers; spans (start, end) sorted by start."""
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / (end - spans[0][0])


def of_loop(name: str, options: argparse.Namespace, world: World) -> list[float]:
    """Seconds a step of the training loop, from what its log says after the first lines."""
    case, folder = GPU_CASES[name], options.scratch / name
    source = ["data.source=folder", f"data.root={options.data}"] if options.data else case.loaded
    steps = options.steps * (options.rounds + 1)
    lengths = [f"steps={steps}", f"log_every={options.steps}", "checkpoint_every=1000000"]
    batch = f"optim.batch_size={case.batch_size * world.size}"
    settings = [*source, *lengths, batch, f"compute.device={world.device.type}", f"run_dir={folder}"]
    config, modality = case.build(options.precision, [*settings, *options.overrides])
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)
    train(config, modality, world)
    speeds = [line["samples_per_second"] for line in read_metrics(config.run_dir)[1:]]
    return [config.optim.batch_size / speed for speed in speeds]


def row(result: dict[str, Any]) -> list[str]:
    """A line of the table."""
    seconds = median(result["seconds"])
    rate = result["flops"] / seconds
    return [
        *(result["name"], spread([1e3 * one for one in result["seconds"]], 1)),
        *(f"{result['batch_size'] / seconds:.1f}", f"{result['flops'] / 1e12:.3g}"),
        *(share(rate, promised()), share(rate, result["matrix_rate"])),
        *(gib(result.get("peak")), gib(result.get("estimate"))),
        share(result.get("idle"), 1),
    ]


def share(part: float | None, whole: float | None) -> str:
    """A percentage, or a dash for what was not measured."""
    return "-" if part is None or whole is None else f"{100 * part / whole:.0f} %"


def gib(size: int | None) -> str:
    """Bytes in GiB, or a dash."""
    return "-" if size is None else f"{size / 2**30:.2f}"


def promised() -> float | None:
    """Dense bf16 FLOP/s by the data sheet of this GPU, if we know it."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((gpu.bf16 for gpu in GPUS if gpu.name.split()[0] in name), None)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=GPU_CASES, default=[one for one in GPU_CASES if one != "toy"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="per round")
    parser.add_argument("--data", type=Path, help="folder for the loader, instead of generated data")
    parser.add_argument("--official-ijepa", type=Path, metavar="PATH", help="checkout of facebookresearch/ijepa")
    parser.add_argument("--official-vjepa", type=Path, metavar="PATH", help="checkout of facebookresearch/jepa")
    parser.add_argument("--scratch", type=Path, help="folder for runs of the loop; shared by all nodes")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="e.g. compute.compile=true")
    options = parser.parse_intermixed_args(argv)
    job = os.environ.get("TORCHELASTIC_RUN_ID", str(os.getpid()))
    options.scratch = options.scratch or Path(tempfile.gettempdir()) / f"jepa-gpu-{job}"
    world = join(options.device)
    results = [one for name in options.models for one in measure(name, options, world)]
    if world.is_main:
        source = {**provenance.provenance("benchmarks.gpu", argv), "processes": world.size}
        where = source["hardware"]["gpu"] if options.device == "cuda" else "no GPU"
        title = f"{provenance.heading(source)} {where}, {world.size} processes, {options.precision}."
        page = f"{title}\n\n{provenance.table(_HEADINGS, [row(one) for one in results])}"
        provenance.write(options.json, {**source, "results": results}, page)
        shutil.rmtree(options.scratch, ignore_errors=True)
    world.leave()


if __name__ == "__main__":
    main()
