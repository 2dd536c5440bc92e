"""Speed of attention on this CPU: two products and a softmax against the fused kernel, forward and backward.

python -m benchmarks.attention --json FILE
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import provenance
from jepa.transformer import attend

SHAPES = ((64, 4, 28, 32), (64, 4, 76, 32), (64, 4, 64, 32), (16, 6, 196, 64))  # samples, heads, tokens, channels


def seconds(fused: bool, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """Time of one forward and backward pass."""
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    started = time.perf_counter()
    attended: Tensor = F.scaled_dot_product_attention(query, key, value) if fused else attend(query, key, value)
    attended.sum().backward()
    return time.perf_counter() - started


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    arguments = parser.parse_args()
    rows, cells = [], []
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            pairs = [(seconds(False, shape, dtype), seconds(True, shape, dtype)) for _ in range(33)][3:]
            ours, fused = (1000 * median(column) for column in zip(*pairs, strict=True))
            ratio = median(other / own for own, other in pairs)
            rows.append({"shape": shape, "type": str(dtype), "ours_ms": ours, "fused_ms": fused, "ratio": ratio})
            cells.append([str(shape), str(dtype), f"{ours:.2f}", f"{fused:.2f}", f"{ratio:.2f}"])
    headings = ["samples, heads, tokens, channels", "type", "ours, ms", "fused, ms", "fused / ours, pair by pair"]
    source = provenance.provenance("benchmarks.attention")
    page = f"{provenance.heading(source)}\n\n{provenance.table(headings, cells)}"
    provenance.write(arguments.json, {**source, "rows": rows}, page)


if __name__ == "__main__":
    main()
