"""User code by `package.module:name`: where it is found, and how its errors are described."""

import sys
from pathlib import Path

import pytest

from jepa.config.imports import describe_error, imported


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is not on the path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_in_the_working_directory_is_found_and_its_neighbours_later(folder: Path) -> None:
    (folder / "own_module.py").write_text("def late():\n    from own_neighbour import answer\n    return answer\n")
    (folder / "own_neighbour.py").write_text("answer = 42\n")
    assert imported("own_module:late")() == 42


def test_the_working_directory_joins_the_path_only_if_it_holds_the_module(folder: Path) -> None:
    (folder / "json.py").write_text("raise RuntimeError\n")
    before = list(sys.path)
    assert imported("json:dumps")([]) == "[]"
    with pytest.raises(ValueError, match=rf"no module 'no_such_module': .*{folder}"):
        imported("no_such_module:name")
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("json", "not of the form package.module:name"),
        ("a b:c", "not of the form package.module:name"),
        ("json:dump.no_such", "json has no 'no_such'"),
        ("json:JSONDecodr", "did you mean 'JSONDecoder'?"),
        ("json.no_such:name", "no module 'json.no_such'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_reason(spec: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the reason is compared below
        imported(spec)
    assert reason in str(refused.value)


def test_an_error_is_described_with_the_innermost_line_of_user_code(folder: Path) -> None:
    (folder / "own_failure.py").write_text("import json\n\ndef fail():\n    json.loads('{\\n')\n")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - whatever json raises
        imported("own_failure:fail")()
    described = describe_error(caught.value.with_traceback(caught.tb.tb_next))  # without the frame of this test
    assert described.startswith("JSONDecodeError: Expecting property name")
    assert described.endswith(f"({folder / 'own_failure.py'}, line 4)")
    assert "\n" not in described
