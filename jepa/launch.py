"""Command line -> config and modality -> train, evaluate and report, here or in jobs of a cluster."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from jepa.checkpoint.lock import locked
from jepa.config import ConfigError
from jepa.console import CONSOLE, shown
from jepa.data.index import open_data, remove_index_without_run
from jepa.distributed import join
from jepa.distributed.peers import failing_together
from jepa.distributed.starter import is_started, run_processes
from jepa.errors import INTERRUPTED, exit_status
from jepa.settings.arguments import launch_arguments
from jepa.settings.recipe import chosen_recipe
from jepa.settings.resolve import Resolved, resolve as resolve, resolve_layers, say
from jepa.train import train
from jepa.training.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa launch`, also `python -m jepa.launch` -> exit status."""
    given = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _launch(launch_arguments(given), given))


def _launch(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    if (arguments.sweep or arguments.seeds or arguments.slurm) and not arguments.dry_run:
        from jepa.cluster.submit import launch_many  # not needed to train

        return launch_many(arguments, _configured)
    if arguments.dry_run:
        from jepa.cluster.submit import dry_run

        return dry_run(arguments, _configured)
    resolved = _configured(arguments, [])
    config, modality = resolved.config, resolved.modality
    if arguments.processes > 1 and not is_started():
        if status := run_processes(arguments.processes, "jepa.launch", ["--train-only", *given]):
            return status
        with locked(config.run_dir):
            return _finish(config, True, arguments.train_only)
    try:
        world = join(config.compute.device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with ExitStack() as stack:
        with failing_together(world):
            with world.error_barrier():
                if world.is_main:
                    stack.enter_context(locked(config.run_dir))
                    stack.callback(remove_index_without_run, config.run_dir)
                    say(resolved.notes)
            open_data(modality, config.evaluate, config.run_dir, world, config.probe.every > 0)
            with world.error_barrier():
                if world.is_main:
                    from jepa.evaluate.ready import announce_evaluation

                    announce_evaluation(config, modality, resolved.asks_for_probe)
            finished = train(config, modality, world)
            world.leave()
        return _finish(config, finished, arguments.train_only or not world.is_main)


def _finish(config: Config[Any, Any], finished: bool, train_only: bool) -> int:
    """Evaluate and report a finished run -> exit status."""
    if not finished:
        return INTERRUPTED
    if not train_only:
        if config.evaluate.enabled:
            from jepa.evaluate.run import evaluate_as

            evaluate_as(config)
        if config.evaluate.report:
            from jepa.report.page import write_report  # matplotlib only after training

            CONSOLE.print(f"report: {shown(write_report(config.run_dir))}")
    return 0


def _configured(arguments: argparse.Namespace, more: Sequence[str]) -> Resolved:
    """Config and modality of a command line and more overrides."""
    recipe, overrides = chosen_recipe(arguments.modality, arguments.config), [*arguments.overrides, *more]
    if arguments.run_dir and not any(text.startswith("run_dir=") for text in more):
        overrides.append(f"run_dir={arguments.run_dir}")
    processes = None if arguments.dry_run or arguments.slurm else int(os.environ.get("WORLD_SIZE", arguments.processes))
    return resolve_layers(
        arguments.modality,
        recipe,
        overrides,
        processes=processes,
        keeps_unused=arguments.keep_unused,
        start="tried" if arguments.dry_run else "read",
    )


if __name__ == "__main__":
    sys.exit(main())
