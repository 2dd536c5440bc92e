"""Two real processes equal one: gradients of regularisers and of steps, and a whole training run."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fork_server
import pytest
import torch
import torch.distributed as dist
from pairs import Pairs, PairsConfig, PairsNetworks
from tiny import MODEL, NoiseConfig, PaddedNoise
from torch import Generator, Tensor, nn
from torch._utils import KeyErrorMessage
from torch.nn.functional import cross_entropy

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError
from jepa.data import TrainingBatches
from jepa.data.index import open_data
from jepa.distributed import World, gather_rows, gpu_index, join
from jepa.distributed.peers import failing_together
from jepa.distributed.world import PeerError, reason_of
from jepa.loss import LossConfig, regularisation
from jepa.modality import Modality
from jepa.model import JEPA, Prediction
from jepa.ops.projector import projector
from jepa.optim import OptimConfig
from jepa.predictor import PredictorConfig
from jepa.probe.protocol import EvaluateConfig
from jepa.train import backward
from jepa.training.checks import batch_order
from jepa.training.config import ComputeConfig, Config
from jepa.training.log import read_metrics
from jepa.training.numerics import bf16_everywhere
from modalities.video import lists
from modalities.video.config import VideoConfig
from modalities.video.modality import Video

ROWS = torch.randn(12, 6, generator=Generator().manual_seed(1))
REGULARISERS = ("vicreg", "sigreg", "visreg")


def gradient(kind: str, world: World) -> Tensor:
    """Gradient of a regulariser for a projector with batch norm, from this process's share of the rows."""
    torch.manual_seed(0)
    layer = projector(6, (5, 4), "batch")
    share = len(ROWS) // world.size
    rows = ROWS[world.rank * share : (world.rank + 1) * share]
    forward = world.data_parallel(layer)
    features = forward(rows)
    config = LossConfig(regulariser=kind, regulariser_weight=1.0)
    regularisation([Prediction({}, {"tokens": features})], config, Generator().manual_seed(2)).backward()
    return torch.cat([one.grad.flatten() for one in layer.parameters() if one.grad is not None])


def gathered_gradients() -> list[float]:
    """Gradients of the sums of two gathered tensors, whose gradient autograd passes on as one tensor."""
    first, second = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    (gather_rows(first) + gather_rows(second)).sum().backward()
    return [float(one.grad.max()) for one in (first, second) if one.grad is not None]


def steps() -> dict[str, tuple[Config[Any, Any], Modality[Any]]]:
    """Configs with two streams and each contrastive loss, and one with samples of different lengths."""
    shared: Any = {
        "run_dir": Path(),
        "optim": OptimConfig(batch_size=12),
        "compute": ComputeConfig(device="cpu", precision="fp32"),
    }
    agreeing = LossConfig(regulariser="vicreg", agreement=1.0)
    narrow = PredictorConfig(width=16, depth=1, heads=2)
    found: dict[str, tuple[Config[Any, Any], Modality[Any]]] = {}
    for contrast in ("infonce", "sigmoid"):
        networks = PairsNetworks(contrast=contrast, projector=8, predictor=narrow)
        config: Any = Config(modality="pairs:Pairs", data=PairsConfig(), model=networks, loss=agreeing, **shared)
        found[contrast] = config, Pairs(PairsConfig())
    config = Config(modality="padded", data=NoiseConfig(), model=MODEL, **shared)
    found["lengths"] = config, PaddedNoise(NoiseConfig())
    return found


def step_gradients(config: Config[Any, Any], modality: Modality[Any], world: World) -> dict[str, Tensor]:
    """Gradients of the first step, from this process's share of the batch."""
    torch.manual_seed(0)
    model = JEPA(config.model, modality)
    batches = TrainingBatches(modality, modality.dataset("train"), batch_order(config, modality, world), 0.1)
    backward(config, 0, world.data_parallel(model, varying=bool(model.streams)), batches[0])  # type: ignore[arg-type]
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


class Tables(nn.Linear):
    """A layer with a constant table outside of checkpoints, such as positions."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_buffer("table", torch.zeros(4), persistent=False)


def process(folder: str) -> None:
    """Save the gradients and reductions of one of two processes."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    world = World(rank, 2, torch.device("cpu"))
    found: dict[str, Any] = {kind: gradient(kind, world) for kind in REGULARISERS}
    with patch("jepa.loss.F.cross_entropy", wraps=cross_entropy) as scored:
        found |= {name: step_gradients(*step, world) for name, step in steps().items()}
    found["scores"] = [call.args[0].shape for call in scored.call_args_list]
    found["gathered"] = torch.tensor(gathered_gradients())
    found["mean"] = world.mean(torch.tensor([1.0 + rank]))
    found["any"] = torch.tensor([world.any(rank == 1), world.any(False)])
    for name, fast in {"one is fast": rank == 0, "both are fast": True, "none is fast": False}.items():
        with patch("jepa.training.numerics.has_fast_bf16", return_value=fast):
            found[name] = torch.tensor(bf16_everywhere(ComputeConfig(precision="bf16"), world))
            with pytest.raises(ConfigError, match="auto") if name == "one is fast" else nullcontext():
                found[f"auto, {name}"] = torch.tensor(bf16_everywhere(ComputeConfig(), world))
    forwards: Any = [world.data_parallel(module) for module in (Tables(), nn.BatchNorm1d(4))]
    found["broadcast"] = [forward.broadcast_buffers for forward in forwards]
    torch.save(found, f"{folder}/{rank}.pt")
    world.leave()


def test_two_processes_have_the_losses_and_gradients_of_the_global_batch(tmp_path: Path) -> None:
    done = fork_server.run_group(2, "call", __file__, "process", str(tmp_path))
    assert done.returncode == 0, done.stderr
    alone = World(0, 1, torch.device("cpu"))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for kind in REGULARISERS:
            torch.testing.assert_close(found[kind], gradient(kind, alone))
        for name, step in steps().items():
            torch.testing.assert_close(found[name], step_gradients(*step, alone))
        assert found["scores"] == [(6, 12), (6, 12)]  # own rows of the global batch, both ways
        assert found["gathered"].tolist() == [2, 2]
        assert found["mean"].item() == 1.5
        assert found["any"].tolist() == [True, False]
        fast = {name for name, value in found.items() if name.endswith("fast") and value.item()}
        assert fast == {"both are fast", "auto, both are fast"}
        assert "auto, none is fast" in found
        assert found["broadcast"] == [False, True]  # constant tables are equal anyway, running statistics are not


def opening_process(folder: str) -> None:
    """Open the data of a run as one of two processes, and note what was read."""
    dist.init_process_group("gloo")
    rank, read, read_list = dist.get_rank(), list[str](), lists.read_list
    lists.read_list = lambda path, *more: read.append(str(path)) or read_list(path, *more)  # type: ignore[assignment,func-returns-value]
    video = Video(VideoConfig(source="csv", root=Path(folder) / "all.csv"))
    open_data(video, EvaluateConfig(), Path(folder) / "run", World(rank, 2, torch.device("cpu")))
    torch.save((read, video.dataset("train").digest()), f"{folder}/{rank}.pt")  # type: ignore[attr-defined]
    dist.destroy_process_group()


def test_one_of_two_processes_reads_the_list_of_a_large_data_set(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("".join(f"{number}.mp4 {number % 7}\n" for number in range(14_000)))
    done = fork_server.run_group(2, "call", __file__, "opening_process", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (first, digest), (second, same) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == [str(tmp_path / "all.csv")]
    assert second == []
    assert digest == same


# A moving average, then a copy that is renewed once.
STAGES = (
    "stages=[{until: 0.5, predict: {pixels: 1, latent: 1}, teacher: {start: 0.9}},"
    " {predict: {pixels: 1, latent: 1}, teacher: {kind: snapshot, refreshes: 1}}]"
)
SETTINGS = """
    data.source=folder data.image_size=32 data.patch_size=4
    data.masking.kind=block data.masking.targets=2 data.views=2
    model.size.width=48 model.size.depth=2 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
    model.predictor.depth=2 optim.batch_size=8 optim.peak_lr=1e-3 optim.warmup=0
    steps=6 log_every=1 compute.precision=fp32
    evaluate.enabled=false evaluate.report=false
"""


def command(run_dir: Path, photos: Path, *more: str) -> list[str]:
    run = ["--modality", "image", "--run-dir", str(run_dir), *SETTINGS.split(), STAGES]
    return ["jepa.launch", *run, f"data.root={photos}", *more]


def torchrun(run_dir: Path, photos: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run of two processes, as users start it."""
    line = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *command(run_dir, photos, *more)]
    return subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, check=False, timeout=300)


def together(run_dir: Path, photos: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run of two processes."""
    return fork_server.run_group(2, *command(run_dir, photos, *more))


def alone(run_dir: Path, photos: Path, *more: str) -> int:
    """A run of one process."""
    return launch.main(command(run_dir, photos, *more)[1:])


def assert_same_training(run_dir: Path, expected: Path) -> None:
    lines = read_metrics(expected), read_metrics(run_dir)
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "gradient_norm"):
        one, two = ([line[key] for line in run] for run in lines)
        assert two == pytest.approx(one, rel=1e-4), key
    assert lines[0][0]["loss"] != pytest.approx(lines[0][-1]["loss"], rel=1e-2)  # it did learn
    weights = [Checkpoint.load(latest(run)).model for run in (expected, run_dir)]
    for name, value in weights[0].items():
        # Adam takes full steps along gradients that are only rounding errors, such as those of key biases.
        if name != "projectors.tokens.3.bias":  # regularisers do not depend on the last bias at all
            torch.testing.assert_close(weights[1][name], value, atol=2e-4, rtol=1e-3, msg=name)


REGULARISED = ("loss.regulariser=vicreg",)
# Half of the steps do not run the projector.
VIEWS_LATER = ("loss.regulariser=none", "stages=[{until: 0.5, predict: latent}, {predict: {latent: 1, views: 1}}]")


@pytest.mark.parametrize(
    ("accumulate", "kind", "more"),
    [(1, "adamw", REGULARISED), (2, "muon", (*REGULARISED, "model.size.depth=3")), (2, "adamw", VIEWS_LATER)],
)
def test_two_processes_with_half_the_batch_each_train_like_one_with_all_of_it(
    accumulate: int, kind: str, more: Sequence[str], photos: Path, tmp_path: Path
) -> None:
    settings = ["model.projector=16", f"optim.accumulate={accumulate}", f"optim.optimizer={kind}", *more]
    done = together(tmp_path / "together", photos, *settings)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    assert alone(tmp_path / "alone", photos, *settings) == 0
    assert_same_training(tmp_path / "together", tmp_path / "alone")


def test_micro_batches_have_the_gradient_of_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    settings = ["loss.regulariser=none", "loss.invariance=0", "model.projector=0"]
    for accumulate in (1, 4):
        assert alone(tmp_path / str(accumulate), photos, *settings, f"optim.accumulate={accumulate}") == 0
    assert_same_training(tmp_path / "4", tmp_path / "1")


def test_an_error_in_one_process_ends_all_of_them_with_a_sentence(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "07.png").write_bytes(b"no image")  # read by one process, in the first epoch
    done = torchrun(tmp_path / "run", folder, "data.max_bad_fraction=0", "steps=40")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 2, done.stderr
    assert any(line.startswith("error: 1 of 24 samples cannot be read") for line in said) or any(
        "samples in a row cannot be read" in line for line in said
    )
    assert any(" failed: " in line for line in said)


def fails_alone(where: str, *arguments: str) -> None:
    """A run whose second process raises an error in the third step. where: `hang` lets the first process hang then."""
    import jepa.train
    from jepa.distributed import peers

    peers.GRACE = 2
    rank, backward = int(os.environ["RANK"]), jepa.train.backward

    def failing(config: Any, step: int, *rest: Any) -> Any:
        if step == 3 and rank == 1:
            raise RuntimeError("a defect")
        if step == 3 and where == "hang":
            time.sleep(60)  # as in a collective of NCCL, which does not notice
        return backward(config, step, *rest)

    jepa.train.backward = failing
    raise SystemExit(launch.main(arguments))


@pytest.mark.parametrize("where", ["collective", "hang"])
def test_an_unexpected_error_in_one_process_ends_the_others_and_all_workers(
    where: str, photos: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    line = command(tmp_path / "run", photos, "compute.workers=1")[1:]
    done = fork_server.run_group(2, "call", __file__, "fails_alone", where, *line)
    assert time.monotonic() - started < 20
    assert "RuntimeError: a defect" in done.stderr
    if where == "hang":  # otherwise the signal that ends the group may come first
        assert "error: process 1 failed: RuntimeError: a defect" in done.stderr


def test_a_process_raises_its_own_error_even_if_others_learned_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    in_loader = "Caught KeyError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n  File\n"
    defect = KeyError(KeyErrorMessage(f"{in_loader}KeyError: 'colour'\n"))
    assert reason_of(defect) == "KeyError: 'colour'"
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    with pytest.raises(PeerError), failing_together(World(0, 2, torch.device("cpu"))):
        raise PeerError(f"process 1 failed: {reason_of(defect)}")
    assert store.get("jepa/failure/0").decode() == "process 1 failed: KeyError: 'colour'"
    with pytest.raises(KeyError), failing_together(World(1, 2, torch.device("cpu"))):
        raise defect


@pytest.mark.parametrize(
    ("environment", "visible", "expected"),
    [
        ({}, 8, 0),
        ({"LOCAL_RANK": "3"}, 8, 3),  # every process sees all GPUs
        ({"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "3"}, 1, 0),  # every process sees only its own
        ({"SLURM_LOCALID": "2"}, 4, 2),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 2, 1),  # torchrun in a SLURM task
    ],
)
def test_each_process_takes_its_own_gpu(
    environment: dict[str, str], visible: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert join("auto").device == torch.device("cuda", expected)
    assert taken == [torch.device("cuda", expected)]


def test_mps_must_be_asked_for_and_available_and_trains_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The availability check is mocked: this never runs on a real device."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"compute\.device: mps .* no MPS device"):
        join("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert join("auto").device == torch.device("cpu")
    assert join("mps").device == torch.device("mps")
    assert ComputeConfig(device="mps").loaders(torch.device("mps")) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"compute\.device: mps .* 2"):
        join("mps")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"compute\.device: process 2 .* 2 are visible"):
        gpu_index(2)


def test_one_process_needs_no_process_group_and_absent_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join("cpu")
    assert (world.rank, world.size, world.is_main, world.any(True)) == (0, 1, True, True)
    assert not dist.is_initialized()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert join("auto").device.type == "cpu"
    with pytest.raises(ValueError, match=r"compute\.device: cuda is set, but torch sees no CUDA device"):
        join("cuda")
