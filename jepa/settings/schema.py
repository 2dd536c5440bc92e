"""`jepa schema`: a JSON schema of the settings, from which editors complete and check YAML files."""

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from jepa.console import command_parser
from jepa.errors import exit_status
from jepa.modality import DataConfig
from jepa.model_config import ModelConfig
from jepa.plugins.registry import modality_class, names
from jepa.training.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa schema [--modality NAME]` -> exit status."""
    parser = command_parser(
        "schema",
        "Print a JSON schema of the settings. Editors with YAML support complete and check a file whose first line "
        "is `# yaml-language-server: $schema=PATH`.",
        "--modality image",
    )
    parser.add_argument(
        "--modality",
        help=f"installed: {', '.join(names())}, or package.module:Class (default: any; all keys in data and model)",
    )
    arguments = parser.parse_args(argv)

    def run() -> int:
        print(json.dumps(config_schema(arguments.modality), indent=1, ensure_ascii=False))
        return 0

    return exit_status(run)


def config_schema(modality: str | None) -> dict[str, Any]:
    """The schema of YAML files of a modality, in which every setting may be left out; None for any modality."""
    config_type: Any = Config.of(modality_class(modality)) if modality else Config[DataConfig, ModelConfig]
    schema = _simplified(TypeAdapter(config_type).json_schema(schema_generator=_Described))
    if modality is None:
        for section in (DataConfig, ModelConfig):
            schema["$defs"][section.__name__]["additionalProperties"] = True
    base = {"type": "string", "description": "Recipe or file that has all settings which are not here."}
    schema["properties"] = {"base": base, **schema["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"settings: {modality or 'any'}",
        **schema,
    }


def descriptions(config_type: type) -> dict[str, str]:
    """What the docstrings and comments of a config dataclass and its bases say about its settings, by name."""
    found: dict[str, str] = {}
    for owner in reversed(config_type.__mro__):
        if is_dataclass(owner):
            text, settings = " ".join((inspect.getdoc(owner) or "").split()), [one.name for one in fields(owner)]
            found.update(_from_comments(owner))
            found.update(_labelled(text, settings))
            found.update({name: said for name in settings if name not in found and (said := _mentions(text, name))})
    return found


class _Described(GenerateJsonSchema):
    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of a dataclass, with descriptions and without unknown keys."""
        found = super().dataclass_schema(schema)
        found["description"] = (inspect.getdoc(schema["cls"]) or "").partition("\n\n")[0].replace("\n", " ")
        for name, text in descriptions(schema["cls"]).items():
            if name in found["properties"]:
                found["properties"][name]["description"] = text
        return {**found, "additionalProperties": False}

    def tuple_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of a list, of whose sections a mapping may change some: the key 0 changes the first."""
        found = super().tuple_schema(schema)
        if "$ref" not in found.get("items", {}):
            return found
        changes = {"type": "object", "patternProperties": {"^[0-9]+$": found["items"]}, "additionalProperties": False}
        return {"anyOf": [found, changes]}


def _simplified(schema: Any) -> Any:
    """A schema for partial files: nothing is required, a part may fit several kinds, and titles are left out."""
    if isinstance(schema, list):
        return [_simplified(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = {"required", "discriminator"} | ({"title"} if isinstance(schema.get("title"), str) else set())
    kept = {"anyOf" if key == "oneOf" else key: value for key, value in schema.items() if key not in dropped}
    return {
        key: value
        if key in ("default", "enum", "const")
        else {name: _simplified(part) for name, part in value.items()}
        if key in ("properties", "patternProperties", "$defs")
        else _simplified(value)
        for key, value in kept.items()
    }


def _labelled(text: str, settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Sentences of a docstring after `name: ` or `name, name: `, where a sentence may begin."""
    name = "|".join(sorted(map(re.escape, settings), key=len, reverse=True)) or "(?!)"
    labels = list(re.finditer(rf"(?:^|(?<=\. )(?<!\bal\. )|(?<=\) ))((?:{name})(?:, (?:{name}))*): ", text))
    for label, following in zip_longest(labels, labels[1:]):
        end = following.start() if following else len(text)
        for one in label[1].split(", "):
            yield one, text[label.end() : end].strip()


def _mentions(text: str, name: str) -> str:
    """The sentences of a docstring in which a name occurs."""
    sentences = re.split(r"(?<=\.)(?<!\bal\.)(?<!\bsec\.) ", text)  # not at "et al. 2024, sec. 3"
    return " ".join(one for one in sentences if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", one))


def _from_comments(owner: type) -> Iterator[tuple[str, str]]:
    """The comments behind the settings of a dataclass."""
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):  # a class without a file
        return
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno is not None:
            _, mark, comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")
            if mark:
                yield node.target.id, comment.strip()


if __name__ == "__main__":
    sys.exit(main())
