"""Memory of decoded inputs that the processes of a machine share."""

import gc
import os
import pickle
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from tiny import Noise, NoiseConfig
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves

from jepa.data import Batch, Order, SampleCache, TrainingBatches, training_batches
from jepa.data.shared import SharedInputs, shared_inputs
from jepa.distributed import World, join
from jepa.modality import Sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory that is shared like this")

SAMPLES, STEPS = 24, 18  # batches of 8: six epochs


@dataclass(frozen=True)
class Caption:
    image: Tensor
    words: tuple[str, ...]


def inputs() -> list[Any]:
    """All that a modality may store: tensors of any type, shape and order, and other objects."""
    picture = torch.randint(256, (5, 6, 3), dtype=torch.uint8, generator=Generator().manual_seed(0)).permute(2, 0, 1)
    numbers = torch.randn(2, 3, 4, generator=Generator().manual_seed(1))
    tensors = [picture, picture[:, ::2], numbers, numbers.bfloat16(), numbers > 0, numbers[0, 0, 0], numbers[:0]]
    return [*tensors, {"left": numbers, "right": "words"}, Caption(picture, ("a", "b")), b"bytes", "text"]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Caption):
        return same(one.image, other.image) and one.words == other.words
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def in_child(call: Any) -> int:
    """Call a function in a forked process -> its exit status."""
    child = os.fork()
    if not child:
        try:
            os._exit(int(call() or 0))
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]


def test_inputs_are_as_stored_in_forked_and_in_other_processes() -> None:
    shared = SharedInputs.create(20, 2**20)
    assert in_child(lambda: [shared.put(number, one) for number, one in enumerate(inputs())] and 0) == 0
    pictures = inputs()[0], shared.get(0)
    assert [one.stride() for one in pictures] == [(1, 18, 3)] * 2  # colours innermost, as decoded
    other: SharedInputs = pickle.loads(pickle.dumps(shared))  # as loaders that are not forked receive it
    assert other.descriptor != shared.descriptor
    for memory in (shared, other):
        assert all(same(one, memory.get(number)) for number, one in enumerate(inputs()))
        assert memory.get(len(inputs())) is None
    other.put(0, "another")
    other.put(15, "more")
    assert same(shared.get(0), inputs()[0])
    assert shared.get(15) == "more"


def test_a_process_that_has_other_memory_at_the_path_does_not_use_it() -> None:
    shared = SharedInputs.create(3, 1000)
    assert SharedInputs.opened(shared.path, b"x" * 16, 3, 1000) is None
    assert SharedInputs.opened(f"/proc/{os.getpid()}/fd/999999", shared.token, 3, 1000) is None
    assert SharedInputs.opened(shared.path, shared.token, 3, 100_000) is None
    assert SharedInputs.opened(shared.path, shared.token, 3, 1000) is not None


def test_full_memory_keeps_what_it_has_and_takes_no_more() -> None:
    shared = SharedInputs.create(100, 10_000)
    for number in range(100):
        shared.put(number, torch.full((1000,), number, dtype=torch.uint8))
    kept = [number for number in range(100) if shared.get(number) is not None]
    assert kept == list(range(len(kept)))
    assert 7 <= len(kept) <= 9
    assert all(shared.get(number).unique().tolist() == [number] for number in kept)
    shared.put(99, b"")  # smaller, so it may still fit
    shared.put(98, threading.Lock())  # cannot be pickled, so it is not kept
    assert shared.get(98) is None


def test_a_process_that_dies_while_it_writes_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedInputs.create(10, 100_000)
    shared.put(0, torch.zeros(1000))

    def dies() -> None:
        monkeypatch.setattr(
            "jepa.data.shared.memoryview", lambda _: os.kill(os.getpid(), signal.SIGKILL), raising=False
        )
        shared.put(1, torch.ones(1000))

    assert in_child(dies) == signal.SIGKILL
    assert shared.get(1) is None
    shared.put(2, torch.full((1000,), 2.0))  # would wait forever for a lock that is still held
    shared.put(1, torch.full((1000,), 3.0))
    assert [shared.get(number).unique().item() for number in (0, 1, 2)] == [0, 3, 2]


class Logged:
    """Samples of noise; each reading is a line in a file."""

    def __init__(self, log: Path) -> None:
        self.log, self.samples = log, Noise(NoiseConfig(samples=SAMPLES)).dataset("train")

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Sample:
        with self.log.open("a") as log:
            log.write(f"{index}\n")
        return self.samples[index]


def read_batches(log: Path, workers: int, megabytes: int, world: World) -> list[Tensor]:
    """The views of a run's share of its batches."""
    modality = Noise(NoiseConfig(samples=SAMPLES))
    cached = SampleCache.of_machine(Logged(log), megabytes, world, workers)
    order = Order(seed=3, batch_size=8, rank=world.rank, world_size=world.size)
    batches = TrainingBatches(modality, cached, order, 0.1)
    with training_batches(batches, range(STEPS), workers, world) as loading:
        found: list[Batch] = list(loading)
    return [leaf for batch in found for leaf in tree_leaves(batch.views)]


def process(folder: str) -> None:
    world = join("cpu")
    torch.save(read_batches(Path(folder, "log"), 2, 1, world), Path(folder, f"{world.rank}.pt"))
    world.leave()


@pytest.mark.parametrize("processes", [1, 2])
def test_each_sample_is_decoded_once_on_a_machine_and_batches_stay_the_same(tmp_path: Path, processes: int) -> None:
    single = World(0, 1, torch.device("cpu"))
    expected = read_batches(tmp_path / "alone", 0, 0, single)
    assert len((tmp_path / "alone").read_text().split()) == 8 * STEPS
    if processes == 1:
        views = read_batches(tmp_path / "log", 2, 1, single)
    else:
        done = fork_server.run_group(2, "call", __file__, "process", str(tmp_path))
        assert done.returncode == 0, done.stderr
        halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
        views = [torch.cat(parts) for parts in zip(*halves, strict=True)]
    assert all(map(torch.equal, views, expected))
    read = (tmp_path / "log").read_text().split()
    assert set(read) == set(map(str, range(SAMPLES)))
    assert len(read) < 1.5 * SAMPLES  # two may decode a sample at once; four on their own would have read 4 * SAMPLES


def test_one_process_that_reads_alone_shares_nothing_nor_do_systems_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0, 1, torch.device("cpu"))
    assert shared_inputs(world, 0, 10, 512) is None
    assert shared_inputs(world, 1, 10, 512) is None
    assert shared_inputs(world, 2, 10, 0) is None
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        assert shared_inputs(world, 2, 10, 512) is None
    found = shared_inputs(world, 2, 10, 512)
    assert found is not None
    assert found.limit == 2 * 512 * 2**20


def test_memory_costs_what_is_written_and_ends_with_its_users() -> None:
    shared: SharedInputs | None = SharedInputs.create(1000, 2**40)
    assert shared is not None
    shared.put(1, b"0" * 2**20)
    assert os.fstat(shared.descriptor).st_blocks * 512 < 2**22
    path = Path(shared.path)
    assert path.exists()
    shared = None
    gc.collect()
    assert not path.exists()
