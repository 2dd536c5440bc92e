"""What is wrong with a config: pydantic's findings in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

Location = tuple[str | int, ...]  # of pydantic: keys, indices and, in between, names of union members

_WORDS = {  # for what pydantic says in terms of JSON
    **dict.fromkeys(("dataclass_type", "model_attributes_type", "dict_type"), "should be a section of settings"),
    **dict.fromkeys(("tuple_type", "list_type"), "should be a list"),
}


def explained(findings: Sequence[Any], tree: Mapping[str, Any]) -> str:
    """Pydantic's findings as one sentence per key."""
    sentences: dict[str, list[str]] = {}
    for finding in findings:
        path, sentence = _sentence(finding, tree)
        sentences.setdefault(".".join(map(str, path)), []).append(sentence)
    lines = (f"{path}: {', or '.join(dict.fromkeys(messages))}" for path, messages in sentences.items())
    return "; ".join(line.removeprefix(": ") for line in lines)


def _sentence(finding: Any, tree: Mapping[str, Any]) -> tuple[list[str | int], str]:
    """The path of the key that a finding is about, and what is wrong with it."""
    path, value = path_of(tree, finding["loc"]), finding["input"]
    message = finding["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    match finding["type"]:
        case "value_error":
            return path, message
        case "missing":
            return [*path, finding["loc"][-1]], "must be set"
        case "union_tag_not_found":
            return [*path, _discriminator(finding)], "must be set"
        case "union_tag_invalid":
            kinds = " or ".join(finding["ctx"]["expected_tags"].rsplit(", ", 1))
            return [*path, _discriminator(finding)], f"should be {kinds}, not {finding['ctx']['tag']!r}"
        case "string_type" if isinstance(value, int | float):
            hint = " (in YAML, text that reads as a number or as true or false needs quotes)"
        case _:
            hint = ""
    return path, f"{_WORDS.get(finding['type'], message).removeprefix('input ')}, not {value!r}{hint}"


def _discriminator(finding: Any) -> str:
    """The setting that says which member of a union a section is."""
    return str(finding["ctx"]["discriminator"]).strip("'")


def path_of(tree: Any, location: Location) -> list[str | int]:
    """The keys and indices in a location of pydantic, without its names of union members."""
    path = []
    for part in location:
        if part in (tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()):
            tree = tree[part]
            path.append(part)
    return path
