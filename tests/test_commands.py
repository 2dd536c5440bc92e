"""`jepa` lists its commands, and the help of each ends with an example that works."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest

from jepa.__main__ import COMMANDS
from jepa.cluster.sweep import variants
from jepa.config.recipes import read_recipe
from jepa.launch import resolve

Jepa = Callable[..., Any]


@pytest.fixture
def jepa(monkeypatch: pytest.MonkeyPatch) -> Jepa:
    """Call the installed command with a command line -> exit status."""
    (installed,) = entry_points(group="console_scripts", name="jepa")

    def call(*arguments: str) -> Any:
        monkeypatch.setattr("sys.argv", ["jepa", *arguments])
        return installed.load()()

    return call


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed_with_one_line_each(
    arguments: list[str], jepa: Jepa, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jepa(*arguments) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w.*$", printed, re.MULTILINE), printed


def test_an_unknown_command_is_refused_with_the_nearest_and_all(jepa: Jepa, capsys: pytest.CaptureFixture[str]) -> None:
    assert jepa("lunch") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'lunch', did you mean 'launch'?" in printed.err
    assert all(command in printed.err for command in COMMANDS)


class ParsedError(Exception):
    """Raised with the parsed arguments, before the command uses them."""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_whose_options_and_settings_exist(
    command: str, jepa: Jepa, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        jepa(command, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jepa {command} ")
    examples = re.split(r"^examples?:$", text, flags=re.MULTILINE)[1].split("\n")[1:-1]

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(ArgumentParser, name)

        def parse_only(parser: ArgumentParser, arguments: list[str], parse: Callable[..., Any] = parse) -> Any:
            raise ParsedError(parse(parser, arguments))

        monkeypatch.setattr(ArgumentParser, name, parse_only)
    for example in examples:
        words = shlex.split(example)
        assert words[:2] == ["jepa", command]
        with pytest.raises(ParsedError) as caught:
            jepa(*words[1:])
        (arguments,) = caught.value.args
        for variant in variants(getattr(arguments, "sweep", []), getattr(arguments, "seeds", 0)):
            settings = [*getattr(arguments, "overrides", []), *variant.overrides]
            _, modality = resolve("image", read_recipe("image"), settings)
        tasks = [name.partition("/")[0] for name in getattr(arguments, "task", [])]
        assert {*tasks} <= {task.label for task in modality.tasks}
