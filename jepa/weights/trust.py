"""Loading a checkpoint imports what its config names: installed modalities always, other code only if asked to."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from jepa.checkpoint import CheckpointError
from jepa.config import Tree
from jepa.matching import MatchedModality
from jepa.plugins.registry import declared_name, modality_class


@contextmanager
def importing(run: Path | str, config: Mapping[str, Any], trust: bool) -> Iterator[None]:
    """Let the body import what the config of a checkpoint names, without a lasting change of the path of imports.

    Raises CheckpointError if that is code that no installed package declares as a modality, and it is not trusted.
    """
    if names := [] if trust else _strange_code(config):
        raise CheckpointError(
            f"loading {run} would import and call {' and '.join(names)}, which no installed package declares as a "
            "modality; if you trust its authors, pass trust=True (--trust in commands)"
        )
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = [path for path in sys.path if path in before]


def check_trusted(source: str, named: Iterable[str], own: Tree) -> None:
    """Raise CheckpointError if a source that is not trusted names functions to call which the user's settings do not.

    For functions that only an evaluation calls; those that loading calls are for `importing` to refuse.
    """
    own_functions = set(functions_in(own))
    if strange := [name for name in dict.fromkeys(named) if name not in own_functions]:
        raise CheckpointError(
            f"evaluating {source} would import and call {' and '.join(strange)}, which its config names; if you trust "
            "its authors, pass --trust, otherwise evaluate.functions=[]"
        )


def _strange_code(config: Mapping[str, Any]) -> list[str]:
    """Modality and functions that loading would import, apart from installed modalities and their packages' functions.

    A class whose module this process has imported already is known; other functions are not, as any module has some.
    """
    modality = config["modality"]
    installed = ":" not in modality or declared_name(modality) != modality
    known = installed or modality.partition(":")[0] in sys.modules
    package = _package_of(modality) if installed else None
    functions = [name for name in dict.fromkeys(functions_in(config["data"])) if not _is_of(package, name)]
    if known and issubclass(modality_class(modality), MatchedModality):  # others load an encoder
        functions += [name for name in predicted_functions(config) if not _is_of(package, name)]
    return functions if known else [modality, *functions]


def _package_of(modality: str) -> str | None:
    """Top-level package of an installed modality; None for a namespace, as other installed packages may share it."""
    package = modality_class(modality).__module__.partition(".")[0]
    return package if getattr(sys.modules.get(package), "__file__", None) else None


def _is_of(package: str | None, name: str) -> bool:
    """Whether `package.module:function` is defined, not only imported, in this package."""
    module, _, function = name.partition(":")
    if package is None or module.partition(".")[0] != package:
        return False
    try:
        found = getattr(import_module(module), function, None)
    except (Exception, SystemExit):  # code may raise anything on import
        return False
    return str(getattr(found, "__module__", "")).partition(".")[0] == package


def predicted_functions(config: Mapping[str, Any]) -> list[str]:
    """Custom functions whose values a config names as targets."""
    kinds = [kind for stage in config.get("stages", ()) for kind in stage.get("predict", ())]
    return [kind for kind in dict.fromkeys(kinds) if ":" in kind]


def functions_in(tree: Any) -> Iterator[str]:
    """Custom functions that a section names."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key == "function" and isinstance(value, str) and ":" in value:
                yield value
            yield from functions_in(value)
    elif isinstance(tree, list):
        for one in tree:
            yield from functions_in(one)
