"""The parser that all commands share."""

import argparse
import textwrap
from typing import Literal


def command_parser(command: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """The parser of `jepa COMMAND`; its help ends with the examples, which are given without that prefix."""
    title = "example:" if len(examples) == 1 else "examples:"
    return argparse.ArgumentParser(
        prog=f"jepa {command}",
        description=textwrap.fill(description, 100),
        epilog="\n".join([title, *(f"  jepa {command} {example}".rstrip() for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_step(parser: argparse.ArgumentParser) -> None:
    """The option `--step` of commands that read a run."""
    words = (
        "a step whose checkpoint was kept (keep_every), or best: that with the best score of the probe (probe.every)"
    )
    parser.add_argument("--step", type=_step, metavar="N", help=words)


def _step(text: str) -> int | Literal["best"]:
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a step; give its number, or best")
    return int(text)
