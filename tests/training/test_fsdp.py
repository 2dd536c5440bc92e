"""Two real processes with half of the weights each train like one, and any number of processes resumes their run."""

import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
import torch.distributed as dist
from full_disk import file_size_limit
from runs import launch_here
from tiny import MODEL, Noise, NoiseConfig, noise, random_masks

from benchmarks.parallel import bytes_held, training_state
from jepa import launch
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import find_checkpoint, kept_steps, read_step
from jepa.distributed import World, whole
from jepa.errors import UserError
from jepa.loss import LossConfig, prediction_loss
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.optim import OptimConfig, build_optimizer, clip_gradient
from jepa.training.fsdp import sharded as sharded_model
from jepa.training.log import read_metrics
from jepa.training.saver import Saver
from jepa.weights.export import main as export
from jepa.weights.opened import load

# A moving average, then a copy that is renewed after a step.
STAGES = (
    "stages=[{until: 0.5, predict: {pixels: 1, latent: 1}, teacher: {start: 0.9}},"
    " {predict: {pixels: 1, latent: 1}, teacher: {kind: snapshot, refreshes: 1}}]"
)
SETTINGS = """
    data.source=folder data.image_size=32 data.patch_size=4 data.views=2
    data.masking.kind=block data.masking.targets=2
    model.size.width=48 model.size.depth=2 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
    model.predictor.depth=2 model.projector=16 optim.batch_size=24 optim.peak_lr=1e-3 optim.warmup=0
    steps=4 log_every=1 checkpoint_every=2 compute.precision=fp32
    evaluate.enabled=false evaluate.report=false
"""


def arguments(run_dir: Path, photos: Path, *more: str) -> list[str]:
    return ["--modality", "image", "--run-dir", str(run_dir), *SETTINGS.split(), STAGES, f"data.root={photos}", *more]


def train(processes: int, run_dir: Path, photos: Path, *more: str) -> str:
    """Run to the end -> its output."""
    return launch_here(*arguments(run_dir, photos, *more), processes=processes)


def broken_off(moment: str, processes: int, run_dir: Path, photos: Path, *more: str) -> str:
    """Run until a moment of `tests/support/broken_off.py` -> its output."""
    done = fork_server.run_group(processes, "broken_off", *arguments(run_dir, photos, *more), BREAK_OFF=moment)
    assert done.returncode != 0
    return done.stderr


def assert_same_training(run_dir: Path, expected: Path) -> None:
    lines = read_metrics(run_dir), read_metrics(expected)
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4]
    for key in ("loss", "gradient_norm"):
        one, other = ([line[key] for line in run] for run in lines)
        assert one == pytest.approx(other, rel=1e-4), key
    weights, whole = (Checkpoint.load(latest(run)).model for run in (run_dir, expected))
    assert weights.keys() == whole.keys()
    for name, value in whole.items():
        # Adam takes full-sized steps even where gradients are only rounding errors, as for biases of keys.
        torch.testing.assert_close(weights[name], value, atol=2e-4, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run_dir = tmp_path_factory.mktemp("runs") / "alone"
    assert launch.main(arguments(run_dir, photos)) == 0
    return run_dir


@pytest.fixture(scope="module")
def sharded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes with half of the model each."""
    run_dir = tmp_path_factory.mktemp("runs") / "sharded"
    train(2, run_dir, photos, "compute.parallel=fsdp")
    return run_dir


def test_two_processes_with_half_of_the_weights_each_train_like_one_process(sharded: Path, alone: Path) -> None:
    assert_same_training(sharded, alone)
    assert latest(sharded).is_symlink()
    assert [path.name for path in latest(sharded).parent.glob("step_*")] == ["step_4"]  # older ones are removed


def test_sharding_works_with_bf16_micro_batches_and_recomputed_activations(photos: Path, tmp_path: Path) -> None:
    more = ["compute.precision=bf16", "optim.accumulate=3", "compute.activation_checkpointing=true"]
    more += ["model.positions=rotary", "loss.regulariser=sigreg", "checkpoint_every=4"]
    more += [
        "stages=[{predict: {pixels: 1, latent: 1}}]",
        "loss.visible=distance",
        "model.levels=[1,2]",
        "model.predictor.blocks=joint",
    ]
    train(2, tmp_path / "sharded", photos, *more, "compute.parallel=fsdp")
    train(1, tmp_path / "alone", photos, *more)
    lines = [read_metrics(tmp_path / run) for run in ("sharded", "alone")]
    for key in ("loss", "gradient_norm"):
        one, other = ([line[key] for line in run] for run in lines)
        assert one == pytest.approx(other, rel=0.02), key


@pytest.mark.parametrize(
    ("first", "then"), [((2, "fsdp"), (1, "ddp")), ((2, "fsdp"), (3, "fsdp")), ((1, "ddp"), (2, "fsdp"))]
)
def test_a_sharded_run_resumes_with_another_number_of_processes(
    first: tuple[int, str], then: tuple[int, str], alone: Path, photos: Path, tmp_path: Path
) -> None:
    broken_off("stop", first[0], tmp_path / "run", photos, f"compute.parallel={first[1]}")
    assert Checkpoint.load(latest(tmp_path / "run")).step == 3
    said = train(then[0], tmp_path / "run", photos, f"compute.parallel={then[1]}")
    assert "resumed from step 3" in said
    assert_same_training(tmp_path / "run", alone)
    folders = [path.name for path in latest(tmp_path / "run").parent.iterdir()]
    assert sorted(folders) == (["latest.pt", "step_4"] if then == (2, "fsdp") or then[0] == 3 else ["latest.pt"])


@pytest.mark.parametrize("moment", ["write", "publish"])
def test_a_run_killed_while_saving_resumes_from_the_previous_checkpoint(
    moment: str, sharded: Path, photos: Path, tmp_path: Path
) -> None:
    broken_off(moment, 2, tmp_path / "run", photos, "compute.parallel=fsdp")
    assert (tmp_path / "run/checkpoints/step_4").is_dir()
    assert Checkpoint.load(latest(tmp_path / "run")).step == 2
    assert "resumed from step 2" in train(2, tmp_path / "run", photos, "compute.parallel=fsdp")
    ended, whole = (Checkpoint.load(latest(run)) for run in (tmp_path / "run", sharded))
    assert all(torch.equal(ended.model[name], value) for name, value in whole.model.items())
    assert [path.name for path in latest(tmp_path / "run").parent.glob("step_*")] == ["step_4"]


def test_shards_load_like_any_run_and_are_exported_as_one_file(sharded: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.pt"
    assert export([str(sharded), str(file)]) == 0
    one, shards = Checkpoint.load(file), Checkpoint.load(latest(sharded))
    assert file.is_file()
    assert (one.step, one.config, one.optimizer["param_groups"]) == (4, shards.config, shards.optimizer["param_groups"])
    assert all(torch.equal(one.model[name], value) for name, value in shards.model.items())
    weights = [dict(load(run).named_parameters()) for run in (file, sharded)]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    assert export([str(sharded), str(file)]) == 1  # nothing is overwritten


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_loading_shards_executes_nothing_and_reports_what_is_broken(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step_4"
    shutil.copytree(latest(sharded), folder)
    (folder / ".metadata").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match=r"step_4 is not a readable checkpoint: .*touch"):
        Checkpoint.load(folder)
    assert not (tmp_path / "sprung").exists()
    shutil.copy(latest(sharded) / ".metadata", folder)
    next(folder.glob("*.distcp")).write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"step_4 is not a readable checkpoint: ."):
        Checkpoint.load(folder)
    (folder / "run.json").unlink()
    with pytest.raises(CheckpointError, match=r"run\.json"):
        Checkpoint.load(folder)


def compare(folder: str) -> None:
    """One process of one or two machines of two: take a step, save, change everything, restore; store the values."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    world = World(rank, dist.get_world_size(), torch.device("cpu"), node_size=2)
    build = partial(JEPA, MODEL, Noise(NoiseConfig()))
    torch.manual_seed(5)
    model = sharded_model(build, world, bf16=False)
    optimizer = build_optimizer(model, OptimConfig(optimizer="muon"))
    assert model.context_encoder.norm.weight.device_mesh.shape == ((2,) if world.size == 2 else (2, 2))
    output = model([noise(4, seed=rank)], [random_masks(4)])
    prediction_loss(output.predictions, LossConfig(), {"latent": 1.0}).backward()
    norm = clip_gradient(optimizer, None)
    optimizer.step()
    held = {name: bytes_held(tensors) for name, tensors in training_state(model, optimizer).items()}
    optimizer.zero_grad()
    initial = {name: whole(value).detach().clone() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}

    # A save holds the values at the time of the call, even if they change while they are written.
    saver = Saver(Path(folder), {}, model, optimizer, world)
    saver.save(1, 0.0, keep=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    saver.wait()

    saved = Checkpoint.load(latest(Path(folder))).model

    # Weights that no step has used yet have no optimiser state, in shards as in a file.
    for parameter in model.predictor.project.parameters():
        del optimizer.state[parameter]
    saver.save(2, 0.0)
    saver.wait()
    if world.is_main:
        Checkpoint.load(latest(Path(folder))).save(latest(Path(folder) / "file"))
    dist.barrier()
    for run_dir in (Path(folder), Path(folder) / "file"):
        again = build_optimizer(model, OptimConfig(optimizer="muon"))
        assert Saver(run_dir, {}, model, again, world).restore(latest(run_dir)) == (2, 0.0)
        assert again.state.keys() == optimizer.state.keys()
        for parameter, state in again.state.items():
            before = optimizer.state[parameter]
            assert state.keys() == before.keys()
            assert all(torch.equal(whole(value), whole(before[name])) for name, value in state.items())

    # A save that does not fit leaves the last one.
    sentence = "step_3 cannot be written: the system does not allow a file of this size"
    with file_size_limit(1000):
        saver.save(3, 0.0)
        with pytest.raises(UserError, match=sentence):
            saver.wait()
    assert read_step(latest(Path(folder))) == 2
    assert kept_steps(Path(folder)) == [1]
    assert read_step(find_checkpoint(Path(folder), 1)) == 1
    dist.barrier()
    assert not (Path(folder) / "checkpoints" / "step_3").exists()
    torch.save(
        {"held": held, "norm": norm, "weights": initial, "buffers": buffers, "saved": saved}, f"{folder}/{rank}.pt"
    )
    world.leave()


@pytest.mark.parametrize("machines", [1, 2])
def test_shards_equal_the_whole_model_and_a_save_ignores_later_changes(machines: int, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    done = fork_server.run_group(2 * machines, "call", __file__, "compare", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2 * machines)]
    torch.manual_seed(5)
    model = JEPA(MODEL, Noise(NoiseConfig()))
    for name, buffer in model.named_buffers():  # not in checkpoints, so every start must create them
        assert all(torch.equal(process["buffers"][name], buffer) for process in found)
    optimizer = build_optimizer(model, OptimConfig(optimizer="muon"))
    parts = [noise(4, seed=rank) for rank in range(2 * machines)]
    output = model([torch.cat(parts)], [Masks.concatenate([random_masks(4)] * len(parts))])
    prediction_loss(output.predictions, LossConfig(), {"latent": 1.0}).backward()
    norm = clip_gradient(optimizer, None)
    assert all(process["norm"] == pytest.approx(norm.item(), rel=1e-4) for process in found)
    optimizer.step()
    for name, tensors in training_state(model, optimizer).items():
        total = bytes_held(tensors)
        assert sum(process["held"][name] for process in found[-2:]) == pytest.approx(total, rel=0.01), name
        assert all(process["held"][name] < 0.6 * total for process in found), name
    for name, value in model.state_dict().items():
        both = found[0]["weights"][name], value
        if name.endswith("qkv.bias"):  # Adam steps along the rounding errors of key biases, which have no gradient
            both = tuple(torch.cat((one.chunk(3)[0], one.chunk(3)[2])) for one in both)
        torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)
        assert torch.equal(found[0]["saved"][name], found[0]["weights"][name])


def test_a_sharded_run_starts_from_the_networks_of_another_run(
    sharded: Path, alone: Path, photos: Path, tmp_path: Path
) -> None:
    still = ["steps=1", "optim.peak_lr=1e-12", "optim.final_lr=0", "compute.parallel=fsdp"]
    still += ["stages=[{predict: {pixels: 1, latent: 1}, teacher: {kind: frozen}}]"]
    for name, start in {"of_a_file": alone, "of_shards": sharded}.items():
        train(2, tmp_path / name, photos, *still, f"start_from={start}")
        weights, expected = (Checkpoint.load(latest(run)).model for run in (tmp_path / name, start))
        for key, value in weights.items():  # the source has no average, so its context encoder gives both encoders
            of_source = expected[key.replace("target_encoder.", "context_encoder.")]
            torch.testing.assert_close(value, of_source, rtol=0, atol=1e-6, msg=key)


def test_sharded_stages_of_views_alone_share_gradients_after_the_last_part_of_a_step(
    photos: Path, tmp_path: Path
) -> None:
    stages = "stages=[{until: 0.5, predict: views, teacher: frozen}, {predict: {latent: 1, views: 1}}]"
    settings = (stages, "steps=2", "optim.accumulate=2", "loss.regulariser=visreg", "data.mask_sets=2")
    train(2, tmp_path / "run", photos, *settings, "compute.parallel=fsdp")
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2]
