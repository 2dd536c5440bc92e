"""Command line -> config and modality -> run: train, evaluate, report."""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Any

from jepa.command import exit_status
from jepa.config import ConfigError, Tree, build, merge, parse_override, plain, to_yaml
from jepa.distributed import join
from jepa.modality import Modality
from jepa.recipes import read_recipe, recipe_names
from jepa.registry import MODALITIES
from jepa.run_log import CONSOLE
from jepa.train import Config, train
from jepa.weights import construct

INTERRUPTED = 130  # exit status of a run that was asked to stop: it is not finished, but nothing is wrong


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m jepa.launch`: run what the command line says -> exit status."""
    return exit_status(lambda: _launch(_parser().parse_intermixed_args(argv)))


def resolve(modality_name: str, recipe: Tree, overrides: Sequence[str]) -> tuple[Config[Any], Modality[Any]]:
    """Defaults, then a recipe, then `section.key=value` overrides -> config and its modality.

    Where no run_dir is given it is named by the config, so that the same command finds its run again.
    Raises ConfigError and UnknownModalityError.
    """
    modality_type = MODALITIES.get(modality_name)
    config_type: Any = Config[modality_type.config_type]  # type: ignore[name-defined]
    # Overrides are one layer, so that their order does not matter where one of them changes a `kind`.
    layers = [recipe, reduce(merge, map(parse_override, overrides), {}), {"modality": modality_name}]
    config: Config[Any] = build(config_type, [{"run_dir": ""}, *layers])
    if plain(config)["run_dir"] in ("", "."):
        digest = hashlib.blake2b(json.dumps(plain(config)).encode(), digest_size=4).hexdigest()
        config = build(config_type, [*layers, {"run_dir": f"runs/{modality_name}-{digest}"}])
    return config, construct(modality_type, config.data)


def _launch(arguments: argparse.Namespace) -> int:
    default = arguments.modality if arguments.modality in recipe_names() else None
    name = arguments.config or default
    recipe = read_recipe(name) if name else {}
    overrides = list(arguments.overrides)
    if arguments.run_dir:
        overrides.append(f"run_dir={json.dumps(arguments.run_dir)}")
    config, modality = resolve(arguments.modality, recipe, overrides)
    if arguments.dry_run:
        from jepa.cost import describe  # builds the networks without memory; only a dry run wants it

        print(to_yaml(config))
        print(describe(config, modality))
        return 0
    try:
        world = join(config.compute.device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    finished = train(config, modality, world)
    world.leave()
    if not finished:
        return INTERRUPTED
    if world.is_main:
        from jepa.evaluate.run import evaluate_run  # scikit-learn and matplotlib only after training
        from jepa.report import write_report

        if config.evaluate.enabled:
            evaluate_run(config.run_dir)
        CONSOLE.print(f"report: {write_report(config.run_dir)}", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jepa launch",
        description="Pretrain, evaluate and report. The same command again goes on where a run stopped.",
    )
    parser.add_argument("--modality", required=True, help="image, or the name of one that another package declares")
    parser.add_argument(
        "--config", help="recipe by name or path of a YAML file (default: the recipe called as the modality)"
    )
    parser.add_argument("--run-dir", help="where everything is written (default: runs/MODALITY-HASH)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and its cost, and stop")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings over the recipe")
    return parser


if __name__ == "__main__":
    sys.exit(main())
