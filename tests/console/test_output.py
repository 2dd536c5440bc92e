"""Text from outside is printed as it is, on one line."""

import pytest

from jepa.console import CONSOLE, shown, warn_once
from jepa.errors import UserError, exit_status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exp[/x] [red]:fire:", "exp[/x] [red]:fire:"),
        ("a\nb\tc\x1b[31m\x85\u2028", r"a\nb\tc\x1b[31m\x85\u2028"),
        (b"caf\xe9".decode("utf-8", "surrogateescape") + "\ud800", r"caf\xe9\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("été 写真 ☂", "été 写真 ☂"),
    ],
)
def test_outside_text_is_printed_as_it_is_or_escaped(
    text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(text) == expected
    CONSOLE.print(shown(text))
    assert capsys.readouterr().err == f"{expected}\n"


def test_an_error_is_one_line_and_a_warning_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise UserError("[/x] cannot be read:\n   bad \udcff")

    assert exit_status(fails) == 1
    assert capsys.readouterr().err == "error: [/x] cannot be read: bad \\xff\n"
    for _ in range(2):
        warn_once("[bold] has no locks")
    assert capsys.readouterr().err == "warning: [bold] has no locks\n"
