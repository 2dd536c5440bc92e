"""What all commands share on the terminal: one console, safe text, one parser."""

from jepa.console.output import CONSOLE, UNSAFE, printer, shown, warn_once
from jepa.console.parser import command_parser

__all__ = ["CONSOLE", "UNSAFE", "command_parser", "printer", "shown", "warn_once"]
