"""`package.module:name` -> the object of that name: how a config and a command line point at somebody's own code."""

import difflib
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

_OURS = Path(__file__).parent.parent


def imported(spec: str) -> Any:
    """What `package.module:name` names; the module is also looked for in the working directory.

    Raises ValueError, in one sentence, where there is no such thing, or where the module fails while it is imported.
    """
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ValueError(f"'{spec}' is not of the form package.module:name")
    found = _module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [other for other in dir(found) if not other.startswith("_")], n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"'{spec}' names nothing: {module_name} has no '{part}'{hint}")
        found = getattr(found, part)
    return found


def describe_error(error: BaseException) -> str:
    """An error as one sentence with the line of code that it comes from, of somebody's own where there is one."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OURS)] or frames
    theirs = [frame for frame in theirs if "site-packages/torch/" not in frame.filename] or theirs
    theirs = [frame for frame in theirs if _beside(frame.filename, theirs[0].filename)]  # not what they use
    words = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return f"{words} ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else words


def _beside(file: str, other: str) -> bool:
    installed = "site-packages" in file, "site-packages" in other
    return Path(file).is_relative_to(Path(other).parent) and installed[0] == installed[1]


def _module(name: str) -> Any:
    if not {"", os.getcwd()} & set(sys.path):  # noqa: PTH109 - as Python itself puts it there
        sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{name} cannot be imported: {describe_error(error)}") from error
        raise ValueError(
            f"there is no module '{error.name}': it is neither installed, nor on PYTHONPATH, nor in the working "
            f"directory {os.getcwd()}"  # noqa: PTH109
        ) from error
    except (Exception, SystemExit) as error:  # whatever somebody's code may do while it is imported
        raise ValueError(f"{name} cannot be imported: {describe_error(error)}") from error
