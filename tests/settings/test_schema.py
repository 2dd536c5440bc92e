"""The JSON schemas of the recipes are those of the code, and every recipe fits its own."""

import json
from typing import Any

import pytest

from jepa.config.recipes import FOLDER, read_recipe, recipes
from jepa.masking import TubeMaskConfig
from jepa.settings.schema import config_schema, descriptions, main
from jepa.training.config import Config
from jepa.training.stages import StageConfig

TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value has the keys, types and choices that a schema allows; without its limits of numbers."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(fits(value, one, root) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema.get("type") == "null" or value is None:
        return value is None and schema.get("type") == "null"
    if not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        known = known | {key: part for part in schema.get("patternProperties", {}).values() for key in value}
        parts = {key: known.get(key, others) for key in value}
        return all(part is True or (part and fits(value[key], part, root)) for key, part in parts.items())
    if isinstance(value, list):
        items = schema.get("prefixItems") or [schema.get("items")] * len(value)
        return len(items) == len(value) and all(map(lambda item, part: fits(item, part, root), value, items))
    return True


@pytest.mark.parametrize("modality", ["image", "video", "image-text"])
def test_the_schema_of_a_modality_is_current_and_fits_its_recipes(
    modality: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = FOLDER / "schema" / f"{modality.replace('-', '_')}.json"
    assert main(["--modality", modality]) == 0
    printed = capsys.readouterr().out
    assert file.read_text() == printed, f"write it again: jepa schema --modality {modality} > {file}"
    schema = json.loads(printed)
    of_modality = {name: path for name, path in recipes().items() if name.split("/")[0] == file.stem}
    assert of_modality
    for name, path in of_modality.items():
        label, _, target = path.read_text().partition("\n")[0].partition("$schema=")
        assert label == "# yaml-language-server: "
        assert (path.parent / target).resolve() == file.resolve()
        recipe = read_recipe(name)
        assert fits(recipe, schema, schema), name
        assert not fits({**recipe, "stesp": 3}, schema, schema)
        assert not fits({**recipe, "optim": {"decay": "slowly"}}, schema, schema)


def test_docstrings_and_comments_describe_settings() -> None:
    found = descriptions(StageConfig)
    assert found["until"] == "share of the steps at which the stage ends; the last one ends at 1."
    assert found["predict"].startswith("kinds of target with weights")
    assert "teacher" not in found["predict"]
    assert "null for random ones" in descriptions(Config)["start_from"]
    assert "the context (Bardes et al. 2024, sec. 3.2)." in descriptions(TubeMaskConfig)["blocks"]
    anything = config_schema(None)
    assert fits({"data": {"key_of_a_plug_in": 3}, "steps": 5}, anything, anything)
    described = [part for one in anything["$defs"].values() for part in one["properties"].values()]
    assert sum("description" in part for part in described) > 0.6 * len(described)
