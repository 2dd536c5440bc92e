"""Our training step beside the published one and those of other packages, in turn in one process.

    python -m benchmarks.step --json benchmarks/results/step.json [--quick] [--threads 1 2] [--clock cpu]

All get the same noise images and masks, sizes of networks and numbers of tokens; on the same weights in fp32, loss and
gradients of the plain published step are compared with ours first. Ours is the step of `jepa.train`: loss, AdamW and
moving average of the target encoder. Times are seconds a step without reading data. Peers that are not installed are
left out with a sentence (pip install lightly stable-pretraining timm transformers). On a busy machine, use one thread
and --clock cpu.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.steps.cases import CASES, Case, Method, Ours, Precision
from benchmarks.steps.measure import CLOCKS, MatrixProduct, breakdown, cost, spread, take_turns
from benchmarks.steps.peers import Forward, Lightly, StablePretraining, timm_vit, transformers_ijepa
from benchmarks.steps.plain import Plain, agreement

_QUICK = {"rounds": 3, "fp32_rounds": 1, "cases": ["images"], "without_peers": True}
_MATRIX = "matrix product"
_COMPILED = "ours, compiled"
_PLAIN = ("plain published step, SDPA", "plain published step, two products")
# Each method with the one of ours that it is compared with.
_AGAINST = {
    **dict.fromkeys((*_PLAIN, _COMPILED, "lightly"), "ours"),
    "stable-pretraining": "ours, targets jointly",
    "timm, forward": "ours, forward",
    "transformers, forward": "ours, forward",
}


def methods(
    case: Case, precision: Precision, peers: bool, compiled: bool = False
) -> tuple[dict[str, Method], dict[str, Any]]:
    """Everything that is measured at a size, and how well the plain step agrees with ours."""
    ours = _ours(case, precision)
    plain = [Plain(ours, precision, fused) for fused in (True, False)]
    built: dict[str, Method] = {"ours": ours, **dict(zip(_PLAIN, plain, strict=True))}
    agreed: dict[str, Any] = {}
    if precision == "fp32":
        losses, gradients = zip(*(agreement(ours, one) for one in plain), strict=True)
        agreed = {"loss": max(losses), "gradients": max(gradients)}
        assert agreed["loss"] < 1e-5, f"the plain step has another loss than ours: {agreed}"
        assert agreed["gradients"] < 1e-3, f"the plain step has other gradients than ours: {agreed}"
    if compiled:
        built[_COMPILED] = _ours(case, precision, "compute.compile=true")
    if not peers:
        return built, agreed
    images = ours.batch.views[0]
    built["ours, forward"] = Forward(ours.model.target_encoder, images, precision)
    if case.modality == "image":
        joint = _ours(case, precision, "model.predictor.blocks=joint")
        _add(built, "lightly", lambda: Lightly(ours, precision))
        _add(built, "stable-pretraining", lambda: StablePretraining(joint, precision))
        if "stable-pretraining" in built:
            built["ours, targets jointly"] = joint
        _add(built, "timm, forward", lambda: Forward(timm_vit(ours), images, precision))
        _add(built, "transformers, forward", lambda: Forward(transformers_ijepa(ours), images, precision))
    return built, agreed


def _ours(case: Case, precision: Precision, *extra: str) -> Ours:
    config, modality = case.build(precision, extra)
    return Ours(config, modality, case.batch(modality))


def _add(built: dict[str, Method], name: str, build: Callable[[], Method]) -> None:
    try:
        built[name] = build()
    except ImportError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)


def measure(name: str, precision: Precision, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One size in one precision, with each number of threads."""
    rounds = options.fp32_rounds if precision == "fp32" else options.rounds
    torch.set_num_threads(options.threads[0])
    built, agreed = methods(CASES[name], precision, not options.without_peers, options.compiled)
    costs = {key: asdict(cost(method)) for key, method in built.items() if key != _COMPILED}  # whose steps hide theirs
    results = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        product = MatrixProduct(precision)
        seconds = take_turns({**built, _MATRIX: product}, rounds, options.clock)
        rate = product.flops / median(seconds[_MATRIX])
        head = {"case": name, "precision": precision, "threads": threads, "agreement": agreed}
        head["shares"] = {key: breakdown(built[key]) for key in ("ours", *_PLAIN)}
        results.append({**head, "costs": costs, "seconds": seconds, "matrix_rate": rate})
        print(_section(results[-1]), flush=True)
    return results


def _section(result: Mapping[str, Any]) -> str:
    """A table of one size, precision and number of threads."""
    seconds, costs = result["seconds"], result["costs"]
    rate = result["matrix_rate"]
    rows = []
    for name in (name for name in seconds if name != _MATRIX):
        reference = _AGAINST.get(name)
        ratio = "" if reference is None else spread(_ratios(seconds[name], seconds[reference]))
        counts = ["", "", "", ""]
        if counted := costs.get(name):
            share = counted["flops"] / median(seconds[name]) / rate
            counts = [f"{counted['flops'] / 1e9:.0f}", f"{100 * share:.0f} %"]
            counts += [f"{counted['activation_bytes'] / 1e6:.0f}", str(counted["operations"])]
        rows.append([name, spread([1e3 * one for one in seconds[name]], 0), ratio, *counts])
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    title = f"**{CASES[result['case']].title}, {result['precision']}, {threads}.**"
    title += f" Matrix product: {rate / 1e9:.0f} GFLOP/s."
    if agreed := result["agreement"]:
        title += f" Plain against ours: loss differs by {agreed['loss']:.0e}, gradients by {agreed['gradients']:.0e}."
    headings = ["", "ms a step", "time / ours", "GFLOP", "share of the product's rate", "activations, MB", "operations"]
    shares = [f"{name}: {_percents(shares)}." for name, shares in result["shares"].items()]
    return "\n\n".join([title, provenance.table(headings, rows), "Where the time goes. " + " ".join(shares)])


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shares.items() if share >= 0.005)


def _ratios(theirs: list[float], ours: list[float]) -> list[float]:
    return [other / own for other, own in zip(theirs, ours, strict=True)]


def main() -> None:
    """Measure, and write the tables and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precision", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--fp32-rounds", type=int, default=5)
    parser.add_argument("--without-peers", action="store_true", help="only our step and the plain published one")
    parser.add_argument("--compiled", action="store_true", help="ours under compute.compile too; minutes to compile")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="wall time, or CPU time of the process")
    parser.add_argument("--quick", action="store_true", help="one size, no peers, few rounds: under two minutes")
    parser.add_argument("--json", type=Path, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
    results = []
    for name in options.cases:
        for precision in options.precision:
            results += measure(name, precision, options)
            gc.collect()
    if options.json:
        source = provenance.provenance("benchmarks.step")
        clock = "Wall time." if options.clock == "wall" else "CPU time of the process."
        page = "\n\n".join([f"{provenance.heading(source)} {clock}", *map(_section, results)])
        provenance.write(options.json, {**source, "clock": options.clock, "results": results}, page)


if __name__ == "__main__":
    main()
