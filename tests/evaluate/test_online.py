"""The probe during training: its score, the best checkpoint, and that it changes nothing else."""

import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from runs import assert_same_weights, launch_here
from small_runs import small
from tiny import Labelled, Noise, noise
from torch import Tensor, nn

import jepa
from jepa import launch
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import best, find_checkpoint, kept, read_step
from jepa.config import ConfigError
from jepa.distributed import World
from jepa.evaluate.online.probe import NEIGHBOURS, best_before
from jepa.evaluate.online.samples import announce_probe
from jepa.evaluate.reading import SampleSubset, evaluated_indices
from jepa.modality import Samples, Split
from jepa.report.probe import probe_words
from jepa.train import train
from jepa.training.log import PROBE, read_metrics

WORLD = World(0, 1, torch.device("cpu"))
SIZE = ("model.size={width: 16, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}")
PROBED = (
    *("probe={every: 2, train_samples: 120, validation_samples: 31}", "data.samples=200", "data.bad=[133]"),
    *("data.grid=[4,6]", "optim.peak_lr=0.03", "optim.warmup=0", "optim.batch_size=8"),
    *("steps=7", "log_every=3", "checkpoint_every=5", "keep_every=1"),
    *("evaluate.enabled=false", "compute.precision=fp32"),
)
COMMAND = ["--modality", "tiny:Labelled", "compute.workers=0", "evaluate.report=false", *SIZE, *PROBED]


def accuracy(run_dir: Path, step: int) -> float:
    """The score of a checkpoint, by a plain loop over validation samples."""
    encoder = jepa.load(run_dir, step=step, trust=True)
    train_rows, rows = (evaluated_indices(200, count, name) for count, name in ((120, "train"), (31, "validation")))

    def vectors(indices: list[int]) -> torch.Tensor:
        with torch.no_grad():
            tokens = encoder(torch.cat([noise(1, seed=index) for index in indices]))
        return torch.nn.functional.normalize(tokens.float().mean(dim=1), dim=1)

    train_rows, rows = ([row for row in some if row != 133] for some in (train_rows, rows))  # the broken sample
    near = (vectors(rows) @ vectors(train_rows).T).topk(NEIGHBOURS)
    right = 0
    for row, cosines, neighbours in zip(rows, near.values, near.indices, strict=True):
        votes = [0.0, 0.0]
        for cosine, neighbour in zip(cosines.tolist(), neighbours.tolist(), strict=True):
            votes[train_rows[neighbour] % 2] += 2.718281828 ** (cosine / 0.07)
        right += votes[row % 2] > votes[1 - row % 2]
    return right / len(rows)


def check(run_dir: Path, tolerance: float = 1e-9) -> None:
    """Scores stand where they are due and are those of the checkpoints; the best checkpoint is the first best one."""
    scores = {line["step"]: line[PROBE] for line in read_metrics(run_dir) if PROBE in line}
    assert list(scores) == [2, 4, 6, 7]
    assert all(abs(score - accuracy(run_dir, step)) < tolerance for step, score in scores.items())
    first = max(scores, key=lambda step: scores[step])
    assert read_step(find_checkpoint(run_dir, "best")) == first
    whole, same = (Checkpoint.load(path).model for path in (best(run_dir), kept(run_dir, first)))
    assert whole.keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in whole.items())


class DroppedPatches(nn.Module):
    """An embedding of patches that depends on training mode and on the global random state."""

    def __init__(self, patches: nn.Module) -> None:
        super().__init__()
        self.patches, self.dropout = patches, nn.Dropout(0.1)

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        dropped: Tensor = self.dropout(self.patches(inputs, keep))
        return dropped


class Disturbing(Labelled):
    """Networks that depend on training mode; views draw from the global random state, which dropout reads."""

    def embedding(self, dim: int) -> nn.Module:
        return DroppedPatches(super().embedding(dim))

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        torch.rand(1)
        return inputs


def test_a_probed_run_keeps_its_best_checkpoint_and_has_the_weights_of_one_without_probes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = small("modality=tiny:Labelled", *SIZE, *PROBED)
    probed = replace(config, run_dir=tmp_path / "probed")
    assert train(probed, Disturbing(config.data), WORLD)
    assert len(read_metrics(probed.run_dir)) == 5
    printed = capsys.readouterr()
    assert "step 2/7  loss" in printed.err
    assert "  k-NN " in printed.err
    assert "the probe leaves out 2 samples that cannot be read, such as noise/133" in printed.err
    assert [line["step"] for line in read_metrics(probed.run_dir)] == [2, 3, 4, 6, 7]

    plain_run = replace(config, run_dir=tmp_path / "plain", probe=replace(config.probe, every=0))
    assert train(plain_run, Disturbing(config.data), WORLD)
    ends = [Checkpoint.load(latest(one.run_dir)) for one in (probed, plain_run)]
    assert all(torch.equal(value, ends[0].model[name]) for name, value in ends[1].model.items())
    assert not best(plain_run.run_dir).exists()


def test_a_run_that_goes_back_to_an_earlier_step_ends_with_the_same_best_checkpoint(tmp_path: Path) -> None:
    config, _ = small("modality=tiny:Labelled", *SIZE, *PROBED)
    probed = replace(config, run_dir=tmp_path / "probed")
    assert train(probed, Labelled(config.data), WORLD)
    check(probed.run_dir)
    shutil.copy(kept(probed.run_dir, 3), latest(probed.run_dir))
    assert train(probed, Labelled(config.data), WORLD)
    check(probed.run_dir)

    # Its score is known when the run resumes, unless that step comes again or other samples are probed.
    first = read_step(best(probed.run_dir))
    top = max(line.get(PROBE, 0) for line in read_metrics(probed.run_dir))
    assert best_before(probed, 7) == (top, first)
    assert best_before(probed, first - 1) == (-math.inf, 0)
    assert best_before(replace(probed, probe=replace(probed.probe, train_samples=119)), 7) == (-math.inf, 0)
    best(probed.run_dir).write_bytes(b"PK")
    with pytest.raises(
        CheckpointError, match=r"best\.pt is not a readable checkpoint: .*\. Remove it and start the run again; "
    ):
        best_before(probed, 7)


def test_a_run_killed_after_its_best_checkpoint_and_before_its_latest_one_ends_with_the_same(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    operations = crash(whole)
    check(whole)
    last_best = max(number for number, name in enumerate(operations, 1) if "replace /checkpoints/best.pt" in name)
    publish = operations.index("checkpoint replace /checkpoints/latest.pt.partial", last_best) + 1
    killed = tmp_path / "killed"
    crash(killed, f"checkpoint:{publish}")
    assert read_step(best(killed)) == read_step(best(whole)) > read_step(latest(killed))
    again = fork_server.run("jepa.launch", *COMMAND, "--run-dir", str(killed))
    assert again.returncode == 0, again.stderr
    assert_same_weights(killed, whole)
    check(killed)
    assert read_step(best(killed)) == read_step(best(whole))


def crash(run_dir: Path, crash_at: str = "") -> list[str]:
    """Run until just before a file operation -> all operations of the thread that writes checkpoints."""
    settings = {"CRASH_FOLDER": str(run_dir), "CRASH_AT": crash_at}
    done = fork_server.run("crash_points", *COMMAND, "--run-dir", str(run_dir), **settings)
    assert done.returncode == (-signal.SIGKILL if crash_at else 0), done.stderr
    return [name for name in done.stdout.splitlines() if name.startswith("checkpoint")]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_share_the_samples_and_one_of_them_may_have_fewer(parallel: str, tmp_path: Path) -> None:
    few_at_once = "evaluate.batch_size=5"  # 15 and 16 samples: the last turn of the first process is empty
    run_dir = tmp_path / "run"
    launch_here(*COMMAND, "--run-dir", str(run_dir), few_at_once, f"compute.parallel={parallel}", processes=2)
    check(run_dir, tolerance=2 / 30)
    assert best(run_dir).is_symlink() == (parallel == "fsdp")


class NoValidation(Labelled):
    """Labelled data without a validation split."""

    def dataset(self, split: Split) -> Samples:
        return SampleSubset(super().dataset(split), range(0 if split == "validation" else 200))


class Unlabelled(Labelled):
    """Labels of samples are known to be missing."""

    def dataset(self, split: Split) -> Samples:
        samples: Any = super().dataset(split)
        samples.labels_of = lambda index: {}
        return samples  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("modality", "reason"),
    [
        (Noise, "the data has no labels that are classes"),
        (NoValidation, "the validation split has no samples"),
        (Unlabelled, "no train sample has a label 'class'"),
    ],
)
def test_without_labels_or_validation_samples_a_run_says_why_it_is_not_probed(
    modality: type[Noise], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = small("modality=tiny:Noise", *SIZE, *PROBED)
    config = replace(config, run_dir=tmp_path / "run")
    announce_probe(config, modality(config.data), is_asked=False)
    assert f"no probe during training: {reason}\n" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"probe.every: {reason}; set probe.every=0"):
        announce_probe(config, modality(config.data), is_asked=True)
    assert train(config, modality(config.data), WORLD)
    assert not any(PROBE in line for line in read_metrics(config.run_dir))


def test_a_user_who_asks_for_a_probe_that_cannot_be_gets_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [word.replace("Labelled", "Noise") for word in COMMAND]
    assert launch.main([*command, "--run-dir", str(tmp_path / "run")]) == 1
    assert "error: probe.every: the data has no labels that are classes; set probe.every=0" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_report_names_the_best_step() -> None:
    config, _ = small("modality=tiny:Labelled", "probe.every=2")
    lines = [{"step": 2, PROBE: 0.25}, {"step": 3}, {"step": 4, PROBE: 0.5}, {"step": 6, PROBE: 0.5}]
    assert "It was best at step 4: 50.0 %, against 50.0 % at step 6. <code>checkpoints/best.pt" in probe_words(
        lines, config
    )
    assert "It was best at its last step, 4: 50.0 %. " in probe_words(lines[:3], config)
    assert probe_words(lines[1:2], config) == ""
