"""The parser that all commands share."""

import argparse
import textwrap


def command_parser(command: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """The parser of `jepa COMMAND`; its help ends with the examples, which are given without that prefix."""
    title = "example:" if len(examples) == 1 else "examples:"
    return argparse.ArgumentParser(
        prog=f"jepa {command}",
        description=textwrap.fill(description, 100),
        epilog="\n".join([title, *(f"  jepa {command} {example}".rstrip() for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
