"""`python -m page_faults KEPT`: prints how many pages the system cleared for ten steps, if freed memory is KEPT or not."""

import resource
import sys

import torch

from jepa.training.memory import keep_freed_memory


def step() -> None:
    """Allocate and free as a step does: much at once, in tensors of some megabytes."""
    _ = [torch.ones(2**19) for _ in range(50)]


if __name__ == "__main__":
    keep_freed_memory(torch.device("cpu" if sys.argv[1] == "kept" else "meta"))
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
