"""`package.module:name` -> the object of that name: how configs and command lines refer to user code."""

import difflib
import os
import sys
import traceback
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

_FRAMEWORK = Path(__file__).parent.parent


def imported(spec: str) -> Any:
    """Import the object that `package.module:name` names, also from a module in the working directory.

    Raises ValueError, in one sentence, if it does not exist or if its module fails to import.
    """
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ValueError(f"'{spec}' is not of the form package.module:name")
    found = _module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [other for other in dir(found) if not other.startswith("_")], n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"'{spec}' does not exist: {module_name} has no '{part}'{hint}")
        found = getattr(found, part)
    return found


def describe_error(error: BaseException) -> str:
    """One line: the exception and the innermost frame of user code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    users = [frame for frame in frames if not Path(frame.filename).is_relative_to(_FRAMEWORK)] or frames
    users = [frame for frame in users if "site-packages/torch/" not in frame.filename] or users
    users = [frame for frame in users if _is_beside(frame.filename, users[0].filename)]  # without libraries they call
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return f"{message} ({users[-1].filename}, line {users[-1].lineno})" if users else message


def _is_beside(file: str, other: str) -> bool:
    """Whether a file lies in or below the folder of another one, and both or neither are installed."""
    installed = "site-packages" in file, "site-packages" in other
    return Path(file).is_relative_to(Path(other).parent) and installed[0] == installed[1]


def _module(name: str) -> Any:
    folder, root = os.getcwd(), name.partition(".")[0]  # noqa: PTH109 - as Python itself puts it on the path
    # The working directory joins the path only if it alone holds the module. It stays there: the module may import its
    # neighbours later, and worker processes import it again.
    known = {"", folder} & set(sys.path) or PathFinder.find_spec(root)
    if not known and PathFinder.find_spec(root, [folder]):
        sys.path.append(folder)
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:  # user code may raise anything on import
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            reason = f"it is not installed, not on PYTHONPATH and not in the working directory {folder}"
            raise ValueError(f"there is no module '{error.name}': {reason}") from error
        raise ValueError(f"{name} cannot be imported: {describe_error(error)}") from error
