"""Train the small encoders of our own and write each with its card into a folder: `make weights`.

python -m benchmarks.weights [NAME ...] [key=value ...] [--steps N] [--folder weights]

Runs the commands that a user would type. What is done is skipped, and a run that was interrupted continues.
`jepa.load("demo-image")` then finds the folder.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa.config import read_yaml
from jepa.weights.demos import DEMOS, FOLDER, Demo
from jepa.weights.formats.folder import is_folder, read_config

_CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Make the weights that are named, by default all -> exit status of the first command that failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME|key=value", help=f"by default all: {', '.join(DEMOS)}; settings of the runs"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="train for fewer steps, to try the commands")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="where to write (default: %(default)s)")
    options = parser.parse_intermixed_args()
    settings = [one for one in options.names if "=" in one]
    names = [one for one in options.names if "=" not in one] or list(DEMOS)
    if unknown := [name for name in names if name not in DEMOS]:
        parser.error(f"no weights '{unknown[0]}'; there are {', '.join(DEMOS)}")
    for name in names:
        demo, written = DEMOS[name], options.folder / name
        steps = options.steps or read_yaml(_CHECKOUT / demo.recipe)["steps"]
        if _is_done(written, steps):
            print(f"{written}: done ({steps:,} steps)", flush=True)
            continue
        for command in commands(name, demo, options.folder, [f"steps={steps}", *settings], steps):
            if status := _run(command, demo):
                print(f"{name} failed; the same command continues where it stopped", file=sys.stderr)
                return status
    return 0


def commands(name: str, demo: Demo, folder: Path, settings: Sequence[str], steps: int) -> list[list[str]]:
    """What trains and evaluates an encoder, and what writes its folder."""
    run_dir = folder / "runs" / f"{name}-{steps}"
    recipe = str(_CHECKOUT / demo.recipe)
    launch = ["launch", "--modality", demo.modality, "--config", recipe, "--run-dir", str(run_dir)]
    push = ["push", str(run_dir), name, "--dry-run", "--trust", "--licence", "apache-2.0"]
    return [[*launch, "--processes", "auto", *settings], [*push, "--folder", str(folder / name)]]


def _is_done(folder: Path, steps: int) -> bool:
    """Whether a folder holds the networks after all steps."""
    if not is_folder(folder):
        return False
    content = read_config(folder)
    return bool(content["step"] == content["config"].get("steps") == steps)


def _run(arguments: list[str], demo: Demo) -> int:
    """Run a command of ours with the package of the modality on the path of imports -> exit status."""
    path = [
        str(_CHECKOUT),
        *([str(_CHECKOUT / demo.package)] if demo.package else []),
        os.environ.get("PYTHONPATH", ""),
    ]
    print(f"$ jepa {shlex.join(arguments)}", flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return subprocess.run([sys.executable, "-m", "jepa", *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
