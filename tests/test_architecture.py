"""Imports have no circles, the core imports no modality, and importing the core is cheap and changes nothing."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

import jepa

ROOT = Path(jepa.__file__).parent.parent
HEAVY = [
    *("decord", "open_clip", "sklearn", "matplotlib", "submitit", "torchvision", "tensorboard", "PIL", "scipy", "av")
]


def modules(*packages: str) -> dict[str, Path]:
    """Files of packages by the full name of their module; the template of `jepa new-modality` is data."""
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
        if "template" not in path.parts
    }


def imports(path: Path) -> Iterator[str]:
    """Full names that a file imports anywhere, also within functions; those under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_graph(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports, as far as they are among these files."""
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        found = {name if name in files else name.rpartition(".")[0] for name in imports(path)}
        graph[module] = {name for name in found if name in files} - {module}
    return graph


def package_graph(graph: Mapping[str, Set[str]], depth: int) -> dict[str, set[str]]:
    """The same between packages, a package being the first `depth` parts of a module's name."""
    packages: dict[str, set[str]] = {}
    for module, used in graph.items():
        packages.setdefault(_first(module, depth), set()).update(_first(one, depth) for one in used)
    return {name: used - {name} for name, used in packages.items()}


def _first(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth])


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Circles of a graph, each once, as the names on it."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, [*path, node])
            done.add(node)

    for start in sorted(graph):
        visit(start, [])
    return found


@pytest.mark.parametrize("packages", [("jepa",), ("modalities",), ("jepa", "modalities")])
def test_no_two_modules_and_no_two_packages_import_each_other(packages: tuple[str, ...]) -> None:
    files = modules(*packages)
    graph = module_graph(files)
    assert sum(map(len, graph.values())) > len(files)
    assert circles(graph) == []
    for package in ("jepa", "modalities"):  # the two roots, in which every folder and file is a part of its own
        inside = {name: used for name, used in graph.items() if name.startswith(f"{package}.")}
        assert circles(package_graph(inside, depth=2)) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_core_knows_no_modality() -> None:
    for module, path in modules("jepa").items():
        assert not [name for name in imports(path) if name.partition(".")[0] == "modalities"], module


def test_importing_the_core_is_cheap_and_changes_nothing() -> None:
    script = f"""
import json, logging, os, random, signal, sys
import rich.style  # draws a number from random for itself
import torch
def state():
    handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    return [dict(os.environ), torch.initial_seed(), torch.get_rng_state().tolist(), hash(random.getstate()), handlers,
            torch.get_num_threads(), str(torch.get_default_dtype()), len(logging.getLogger().handlers), os.getcwd()]
before, modules = state(), set(sys.modules)
import jepa
heavy = [name for name in {HEAVY} if name in set(sys.modules) - modules]
print(json.dumps({{"changed": state() != before, "heavy": heavy,
                   "modalities": [name for name in sys.modules if name.startswith("modalities")]}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"changed": False, "heavy": [], "modalities": []}


def test_the_public_names_are_exactly_these() -> None:
    assert jepa.__all__ == ["embed", "load", "load_modality"]
    assert all(hasattr(jepa, name) for name in jepa.__all__)
