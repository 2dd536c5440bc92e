"""Batches are functions of seed, step and rank; unreadable samples are replaced, listed and counted."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import fork_server
import numpy as np
import pytest
import torch
from tiny import Noise, NoiseConfig
from torch import Tensor

from jepa.data import (
    BadFiles,
    Batch,
    DataError,
    Order,
    SampleCache,
    TrainingBatches,
    batch_bytes,
    batches_ahead,
    open_split,
    seeded,
    training_batches,
)
from jepa.data.order import permutation
from jepa.distributed import World
from jepa.masking import BlockMaskConfig
from jepa.modality import BadSampleError, Sample

WORLD = World(0, 1, torch.device("cpu"))
ORDER = Order(seed=3, batch_size=8)


def batches_of(config: NoiseConfig, order: Order = ORDER) -> TrainingBatches:
    modality = Noise(config)
    return TrainingBatches(modality, open_split(modality, "train"), order, config.max_bad_fraction)


def batch(batches: TrainingBatches, step: int) -> Batch:
    found = batches[step]
    assert isinstance(found, Batch)
    return found


def samples_seen(config: NoiseConfig, order: Order, steps: int) -> list[int]:
    """Indices of the samples that a process reads, in order."""

    class Recording:
        def __init__(self) -> None:
            self.samples, self.seen = Noise(config).dataset("train"), list[int]()

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int) -> object:
            self.seen.append(index)
            return self.samples[index]

    samples = Recording()
    batches = TrainingBatches(Noise(config), samples, order, config.max_bad_fraction)
    for step in range(steps):
        batch(batches, step)
    return samples.seen


def equal(one: Batch, other: Batch) -> bool:
    pairs = list(zip(one.views, other.views, strict=True))
    for mine, theirs in zip(one.masks, other.masks, strict=True):
        pairs += [(mine.context, theirs.context), (mine.target, theirs.target)]
    return all(torch.equal(*pair) for pair in pairs)


def test_every_epoch_reads_every_sample_once_in_another_order() -> None:
    seen = samples_seen(NoiseConfig(samples=20), ORDER, steps=10)  # 80 samples: 4 epochs, whose ends fall into batches
    epochs = [seen[start : start + 20] for start in range(0, 80, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert seen != samples_seen(NoiseConfig(samples=20), dataclasses.replace(ORDER, seed=4), steps=10)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shares_of_several_processes_make_up_the_batch_of_one(processes: int) -> None:
    config = NoiseConfig(sets=2, views=2, masking=BlockMaskConfig(targets=2), grid=(6, 8))
    whole = batches_of(config)
    shares = [
        batches_of(config, dataclasses.replace(ORDER, rank=rank, world_size=processes)) for rank in range(processes)
    ]
    for step in (0, 1, 7):
        parts = [batch(share, step) for share in shares]
        together = batch(whole, step)
        for index, view in enumerate(together.views):
            assert torch.equal(torch.cat([part.views[index] for part in parts]), view)
        assert not torch.equal(*together.views)
        for index, masks in enumerate(together.masks):
            assert torch.equal(torch.cat([part.masks[index].context for part in parts]), masks.context)
            assert torch.equal(torch.cat([part.masks[index].target for part in parts]), masks.target)


def test_a_batch_depends_only_on_seed_and_step() -> None:
    config = NoiseConfig(views=2)
    again = [batch(batches_of(config), 5), batch(batches_of(config), 5)]
    assert equal(*again)
    others = [batch(batches_of(config), 6), batch(batches_of(config, dataclasses.replace(ORDER, seed=4)), 5)]
    assert not any(torch.equal(again[0].views[0], other.views[0]) for other in others)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_batch_and_loading_can_start_at_any_step(workers: int) -> None:
    batches = batches_of(NoiseConfig(bad=(4,)))
    with training_batches(batches, range(2, 6), workers, WORLD) as loading:
        loaded = list(loading)
    assert len(loaded) == 4
    for step, found in enumerate(loaded, start=2):
        assert equal(found, batch(batches, step))
        assert found.bad == batch(batches, step).bad


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_workers_ignore_the_signals_that_stop_a_run(number: signal.Signals) -> None:
    batches = batches_of(NoiseConfig())
    with training_batches(batches, range(20), 1, WORLD) as loading:
        first = next(loading)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, number)
        assert all(equal(found, batch(batches, step)) for step, found in enumerate([first, *loading]))


def test_an_error_ends_the_workers_while_its_traceback_is_kept() -> None:
    def fail() -> None:
        with training_batches(batches_of(NoiseConfig()), range(20), 2, WORLD) as loading:
            next(loading)
            raise RuntimeError("an error that is not ours")

    with pytest.raises(RuntimeError, match="not ours"):
        fail()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_stuck_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds until torch terminates it
    with training_batches(batches_of(NoiseConfig()), range(20), 1, WORLD) as loading:
        next(loading)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGSTOP)
    for killed in multiprocessing.active_children():  # torch does not wait for the end
        killed.join(timeout=10)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_one_sentence_and_ends_the_others() -> None:
    def read() -> None:
        with training_batches(batches_of(NoiseConfig()), range(200), 2, WORLD) as loading:
            next(loading)
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            list(loading)

    with pytest.raises(DataError, match=r"process that prepares batches died.*compute\.workers"):
        read()
    assert not multiprocessing.active_children()


def test_a_sample_has_another_view_in_the_next_epoch() -> None:
    views: dict[float, set[float]] = {}
    for step in range(5):  # two epochs of 20
        for view in batch(batches_of(NoiseConfig()), step).views[0]:
            views.setdefault(round(float(view[0, 0, 0] - view[0, 0, 1]), 3), set()).add(float(view[0, 0, 0]))
    assert all(len(offsets) == 2 for offsets in views.values())


def test_generators_with_different_keys_are_independent() -> None:
    keys = [("masks", 0, 1), ("masks", 1, 0), ("masks", 0, 11), ("view", 0, 1), ("masks", "0", 1)]
    draws: list[Tensor] = [torch.rand(4, generator=seeded(*key)) for key in keys]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(draws, 2))
    assert torch.equal(draws[0], torch.rand(4, generator=seeded("masks", 0, 1)))


def test_an_unreadable_sample_is_always_replaced_by_the_same_one() -> None:
    config = NoiseConfig(bad=(4, 5))
    seen = samples_seen(config, ORDER, steps=5)
    after = [seen[place + 1] for place, index in enumerate(seen) if index == 4]
    assert set(after) == {5}
    found = [batch(batches_of(config), step) for step in range(5)]
    assert all(len(one.views[0]) == 8 for one in found)
    assert {source for one in found for source, _ in one.bad} == {"noise/4", "noise/5"}
    assert all(equal(batch(batches_of(config), step), one) for step, one in enumerate(found))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_without_readable_samples_is_a_data_error(workers: int) -> None:
    batches = batches_of(NoiseConfig(bad=tuple(range(20))))
    loading = training_batches(batches, range(4), workers, WORLD)
    error = pytest.raises(DataError, match=r"^4 samples .*data\.max_bad_fraction.* noise/\d+: it is\sbroken$")
    with error, loading as loaded:
        next(loaded)


def test_several_processes_list_each_bad_file_once(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.txt"
    mine, other = BadFiles(path, 100, 0.02), BadFiles(path, 100, 0.02)
    mine.add([])
    assert not path.exists()
    mine.add([("a.png", "cut\nshort"), ("a.png", "cut short")])
    other.add([("a.png", "cut short"), ("b.png", "empty")])
    mine.add([("b.png", "empty")])
    assert path.read_text() == "a.png\tcut short\nb.png\tempty\n"
    assert mine.summary() == f"2 of 100 samples could not be read; they are listed in {path}"


def test_too_many_bad_files_stop_the_run_in_any_attempt_until_their_list_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.txt"
    files = BadFiles(path, 100, 0.02)
    files.add([("a", ""), ("b", "")])
    with pytest.raises(DataError, match=r"^3 of 100 samples .* data\.max_bad_fraction=0\.02 "):
        files.add([("c", "")])
    assert path.read_text().count("\n") == 3
    BadFiles(path, 100, 0.02, earlier=False).add([("a", "")])  # an evaluation counts its own
    with pytest.raises(DataError, match=r"^3 of 100 samples .* which you can delete once they are mended"):
        BadFiles(path, 100, 0.02).add([("a", "")])
    path.unlink()
    files.add([("d", "")])
    assert path.read_text() == "d\t\n"


def test_a_list_that_a_kill_cut_short_goes_on_in_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.txt"
    path.write_text("a\tbroken\nb")
    BadFiles(path, 100, 0.5).add([("a", ""), ("c", "broken")])
    assert path.read_text() == "a\tbroken\nb\nc\tbroken\n"


def test_a_training_split_without_samples_is_refused() -> None:
    class Nothing(Noise):
        def dataset(self, split: str) -> list[object]:  # type: ignore[override]
            return []

    with pytest.raises(DataError, match=r"data: .* training"):
        open_split(Nothing(NoiseConfig()), "train")


class Counted:
    """Two samples of half a megabyte and a broken one; records which are read."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int, /) -> Sample:
        self.reads.append(index)
        if index == 2:
            raise BadSampleError("2", "broken")
        return Sample({"left": torch.full((2, 256, 256), index, dtype=torch.float32)}, {"class": index})


@pytest.mark.parametrize(
    "inputs", [np.zeros(2**20, dtype=np.uint8), b"0" * 2**20, torch.zeros(2**20, dtype=torch.uint8)]
)
def test_the_cache_counts_arrays_bytes_and_tensors(inputs: object) -> None:
    cached = SampleCache([Sample({"sound": inputs}), Sample(inputs), Sample(inputs)], 2.1)
    for index in range(3):
        assert cached[index].inputs is not None
    assert sorted(cached.cached) == [0, 1]


@pytest.mark.parametrize(("megabytes", "reads"), [(1, [0, 1, 2, 2]), (0.5, [0, 1, 2, 1, 2]), (0, [0, 1, 2, 0, 1, 2])])
def test_samples_are_decoded_once_until_the_cache_is_full(megabytes: float, reads: list[int]) -> None:
    samples = Counted()
    cached = SampleCache(samples, megabytes)
    assert len(cached) == 3
    for index in (0, 1, 2, 0, 1, 2):
        if index == 2:
            with pytest.raises(BadSampleError):
                cached[index]
        else:
            sample = cached[index]
            assert sample.labels == {"class": index}
            assert sample.inputs["left"].unique().tolist() == [index]
    assert samples.reads == reads


@pytest.mark.parametrize(("megabytes", "kept"), [(0.09, 0), (0.12, 125)])
def test_the_cache_is_given_up_if_less_than_half_of_the_set_fits(megabytes: float, kept: int) -> None:
    cached = SampleCache([Sample(torch.zeros(1000, dtype=torch.uint8))] * 200, megabytes)
    for index in range(200):
        assert cached[index].inputs.shape == (1000,)
    assert len(cached.cached) == kept


def test_workers_prepare_batches_ahead_within_a_bound_and_at_least_one_each() -> None:
    size = batch_bytes(Noise(NoiseConfig(grid=(8, 8), views=2)), samples=64)
    assert size == 64 * 2 * 4 * 2 * 16 * 16
    assert [batches_ahead(2**20, 4, megabytes) for megabytes in (0, 4, 7, 8, 12, 1000)] == [1, 1, 1, 2, 3, 4]
    with training_batches(batches_of(NoiseConfig()), range(3), 1, WORLD, prefetch_mb=0) as loading:
        assert loading.gi_frame.f_locals["loaded"]._prefetch_factor == 1  # type: ignore[attr-defined]


def spread_over_ranks() -> list[int]:
    """Four samples of 40, of which each of two processes meets two, in steps 0, 1, 3 and 4; none follows another."""
    shuffled = permutation(0, 0, 40)
    found: list[int] = []
    for step, rank in ((0, 0), (1, 1), (3, 0), (4, 1)):
        numbers = Order(seed=0, batch_size=8, rank=rank, world_size=2).numbers(step)
        samples = [int(shuffled[number]) for number in numbers]
        found.append(next(one for one in samples if all((one - other) % 40 not in (1, 39) for other in found)))
    return found


def test_bad_files_are_counted_over_all_processes_and_attempts(tmp_path: Path) -> None:
    bad = spread_over_ranks()
    run = ["jepa.launch", "--modality", "tiny:Noise", "--run-dir", str(tmp_path), "data.samples=40", f"data.bad={bad}"]
    run += ["data.max_bad_fraction=0.06", "optim.batch_size=8", "steps=5", "checkpoint_every=1", "compute.workers=0"]
    run += ["model.size={width: 16, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}"]
    run += ["evaluate.enabled=false", "evaluate.report=false"]
    for processes in (2, 1):  # each process and each attempt alone meets two of them, which would be allowed
        done = fork_server.run_group(processes, *run, patience=10)
        assert done.returncode == 1, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == processes, done.stderr
        sentence = "of 40 samples cannot be read, more than data.max_bad_fraction=0.06 allows"
        assert all(sentence in line for line in errors)
