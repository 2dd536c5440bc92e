"""Run or submit the runs of one command line; mistakes are reported before anything is submitted."""

import argparse
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from jepa.cluster.job import Command, read_job
from jepa.cluster.profile import Profile, Submission, changes_of, read_profile, script, submit
from jepa.cluster.status import statuses
from jepa.cluster.sweep import Variant, is_finished, run_here, variants, write_sweep
from jepa.config import ConfigError, plain, to_yaml
from jepa.config.effects import refuse
from jepa.console import CONSOLE, shown
from jepa.cost.describe import describe
from jepa.cost.flops import networks
from jepa.cost.process_memory import Allocation
from jepa.data import open_split, say_data
from jepa.data.summary import generated_line
from jepa.distributed import World
from jepa.evaluate.ready import announce_evaluation
from jepa.plugins.registry import modality_class
from jepa.settings.resolve import Resolved, say
from jepa.training.checks import batch_order, check_config
from jepa.training.config import Config
from jepa.training.run_dir import check_run_dir, prepare_run_dir, saved_config

Configure = Callable[[argparse.Namespace, Sequence[str]], Resolved]


def launch_many(arguments: argparse.Namespace, configure: Configure) -> int:
    """Run or submit the runs of `--sweep`, `--seeds` and `--slurm` -> exit status.

    configure: command line and further overrides -> config and modality. Raises ConfigError and DataError.
    """
    profile = profile_of(arguments)
    is_sweep = bool(arguments.sweep or arguments.seeds)
    planned = _planned(arguments) if is_sweep else [Variant("", {})]
    folder = _folder(arguments, configure, is_sweep)
    resolved = _resolved(arguments, configure, planned, folder)
    commands = {
        folder / variant.name: _command(arguments, variant, folder, bool(one.unused))
        for variant, one in zip(planned, resolved, strict=True)
    }
    opened: set[str] = set()
    processes = profile.processes if profile else arguments.processes
    configs = [_checked(resolved.pop(0), processes, opened) for _ in planned]  # each modality keeps its lists of files
    for config in configs:
        check_run_dir(config)
    if arguments.slurm_dry_run and profile is not None:
        submissions = _submissions(commands, profile)
        path = script(submissions, profile, f"jepa-{folder.name}", folder / "slurm")
        print(f"batch script for {len(submissions)} run{'s' * (len(submissions) > 1)}: {shown(path)}")
        return 0
    by_folder = dict(zip(commands, configs, strict=True))
    return _start(by_folder, commands, folder, profile, planned if is_sweep else [], arguments.train_only)


def _start(
    configs: dict[Path, Config[Any, Any]],
    commands: dict[Path, list[str]],
    folder: Path,
    profile: Profile | None,
    planned: Sequence[Variant],
    train_only: bool,
) -> int:
    """Start all runs except those that are finished, running or queued."""
    if planned:
        write_sweep(folder, planned)
    left = {path: command for path, command in commands.items() if not _is_started(configs[path], train_only)}
    if done := len(commands) - len(left):
        CONSOLE.print(f"{done} of {len(commands)} runs are finished, running or queued")
    if not left:
        return 0
    if profile is None:
        return run_here({run_dir.name: command for run_dir, command in left.items()})
    for run_dir in left:
        prepare_run_dir(configs[run_dir])
    submissions = _submissions(left, profile)
    evaluated = [run_dir for run_dir in left if _is_evaluated(configs[run_dir]) and not train_only]
    jobs = submit(submissions, profile, f"jepa-{folder.name}", folder / "slurm", evaluated)
    for submission, job in zip(submissions, jobs, strict=True):
        place = shown(os.path.relpath(submission.run_dir))
        written = read_job(submission.run_dir)
        print(f"submitted job {job.job_id}: {place}\n  log: {shown(written['log'])}")
        if then := written.get("evaluation"):
            print(f"  evaluated by job {then['job_id']}, log: {shown(then['log'])}")
        print(f"  follow: jepa logs {shlex.quote(place)} -f")
    if profile.cluster == "debug":
        for job in jobs:
            job.results()
    else:
        print(f"status: jepa jobs {shlex.quote(shown(os.path.relpath(folder)))}")
    return 0


def dry_run(arguments: argparse.Namespace, configure: Configure) -> int:
    """Print the resolved config, and the cost of the run on the hardware of the profile -> exit status.

    Of a sweep, those of the first run are printed and the settings of all are checked. Raises the errors that the run
    would raise before its first step, except those of generated data.
    """
    if is_sweep := bool(arguments.sweep or arguments.seeds):
        planned = _planned(arguments)
        runs = _resolved(arguments, configure, planned, _folder(arguments, configure, is_sweep))
        CONSOLE.print(f"{len(runs)} runs; config and cost are those of the first, {shown(planned[0].name)}")
    else:
        runs = [configure(arguments, [])]
    config, modality = runs[0].config, runs[0].modality
    say(runs[0].notes)
    profile, allocation = profile_of(arguments), Allocation()
    if profile is not None:
        gpus, hours = profile.nodes * profile.gpus_per_node, profile.timeout_min / 60
        allocation = Allocation(profile.processes, gpus, hours, attempts=1 + profile.max_requeues, nodes=profile.nodes)
    for one in runs:
        _check_settings(one, allocation.processes)
    cost = describe(config, modality, allocation)
    print(f"{to_yaml(config)}\n{cost}")
    if reason := _why_unopened(config.data.root, arguments.overrides):
        CONSOLE.print(shown(generated_line(modality.config) or f"the data is not opened: {reason}"))
    else:
        _check_data(runs[0])
    return 0


def _why_unopened(root: Path | None, overrides: Sequence[str]) -> str:
    """Why a dry run does not open the data; empty if it does."""
    if root is None:
        return "data.root is not set, and generating data takes long"
    if not root.expanduser().exists() and not any(text.startswith("data.root=") for text in overrides):
        return f"{root} does not exist here; the recipe may have been written for another machine"
    return ""


def profile_of(arguments: argparse.Namespace) -> Profile | None:
    """The profile that a command line names, with its changes; None for runs on this machine. Raises ConfigError."""
    changes = changes_of(arguments.nodes, arguments.gpus, arguments.time, arguments.partition)
    if arguments.slurm and arguments.processes > 1:
        raise ConfigError("--processes: is for this machine; on a cluster, --nodes and --gpus say how many there are")
    if arguments.slurm:
        return read_profile(arguments.slurm, changes)
    if changes or arguments.slurm_dry_run:
        raise ConfigError("--nodes, --gpus, --time, --partition and --slurm-dry-run need --slurm PROFILE")
    return None


def _planned(arguments: argparse.Namespace) -> list[Variant]:
    """The runs of a sweep."""
    return variants(arguments.sweep, arguments.seeds, Config.of(modality_class(arguments.modality)))


def _folder(arguments: argparse.Namespace, configure: Configure, is_sweep: bool) -> Path:
    """Absolute directory of the run, or of the sweep."""
    if not is_sweep:
        return configure(arguments, []).config.run_dir.absolute()
    if arguments.run_dir:
        return Path(arguments.run_dir).absolute()
    key = json.dumps([arguments.config, sorted(arguments.overrides), sorted(arguments.sweep)])
    digest = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
    return Path(f"runs/{arguments.modality}-sweep-{digest}").absolute()


def _resolved(
    arguments: argparse.Namespace, configure: Configure, planned: Sequence[Variant], folder: Path
) -> list[Resolved]:
    """The config of each run; raises ConfigError for settings that have an effect in none."""
    keeping = argparse.Namespace(**{**vars(arguments), "keep_unused": True})
    found = [configure(keeping, [*variant.overrides, f"run_dir={folder / variant.name}"]) for variant in planned]
    in_all = set[str].intersection(*(set(one.unused) for one in found))
    if not arguments.keep_unused:
        refuse({path: found[0].unused[path] for path in sorted(in_all)})
    return found


def _checked(resolved: Resolved, processes: int, opened: set[str]) -> Config[Any, Any]:
    """The config of a run, after all checks that need no training.

    opened: data and evaluation of earlier runs, so that those of a sweep that share them open them once.
    """
    config, modality = resolved.config, resolved.modality
    say(resolved.notes)
    data = json.dumps([plain(config.data), plain(config.evaluate), plain(config.probe)])
    _check_settings(resolved, processes)
    if data not in opened:
        _check_data(resolved)
    opened.add(data)
    networks(config, modality)
    return config


def _check_settings(resolved: Resolved, processes: int) -> None:
    """Check what a run checks before it opens its data."""
    check_config(resolved.config, resolved.modality)
    batch_order(resolved.config, resolved.modality, World(0, processes, torch.device("cpu")))


def _check_data(resolved: Resolved) -> None:
    """Check what a run then checks before its first step, except that pretrained weights are not downloaded."""
    config, modality = resolved.config, resolved.modality
    open_split(modality, "train")
    say_data(modality, config.evaluate, config.probe.every > 0)
    announce_evaluation(config, modality, resolved.asks_for_probe)


def _command(arguments: argparse.Namespace, variant: Variant, folder: Path, keeps_unused: bool) -> list[str]:
    recipe = ["--config", arguments.config] if arguments.config else []
    place = ["--run-dir", str(folder / variant.name)]
    keep = ["--keep-unused"] * keeps_unused + ["--train-only"] * arguments.train_only
    keep += [f"--processes={arguments.processes}"] * (arguments.processes > 1)
    overrides = [text for text in (*arguments.overrides, *variant.overrides) if not text.startswith("run_dir=")]
    return ["--modality", arguments.modality, *recipe, *place, *keep, *overrides]


def _submissions(commands: dict[Path, list[str]], profile: Profile) -> list[Submission]:
    here = str(Path.cwd())
    return [
        Submission(Command(tuple(command), here, str(run_dir), profile.max_requeues), run_dir)
        for run_dir, command in commands.items()
    ]


def _is_evaluated(config: Config[Any, Any]) -> bool:
    return config.evaluate.enabled or config.evaluate.report


def _is_started(config: Config[Any, Any], train_only: bool) -> bool:
    """Whether a run is running or queued, or trained and, unless `train_only`, evaluated as the config says."""
    if read_job(config.run_dir) and statuses([config.run_dir])[0].is_active:
        return True
    saved = saved_config(config)
    if saved is None or not is_finished(config.run_dir, train_only=train_only):
        return False
    return train_only or saved.evaluate == config.evaluate
