"""What all commands share on the terminal: one console, safe text, one parser."""

from jepa.console.causes import outside_cause
from jepa.console.output import CONSOLE, UNSAFE, printer, shown, warn_once
from jepa.console.parser import add_step, command_parser

__all__ = ["CONSOLE", "UNSAFE", "add_step", "command_parser", "outside_cause", "printer", "shown", "warn_once"]
