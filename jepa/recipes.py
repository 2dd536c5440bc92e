"""Where recipes lie: `configs/` of the checkout, or the copy inside an installed wheel."""

from pathlib import Path

from jepa.config import ConfigError, Tree, read_yaml

_HERE = Path(__file__).resolve().parent
FOLDER = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")


def read_recipe(name_or_path: str) -> Tree:
    """A recipe by its name below `configs/` (image, image/vit_huge) or by the path of a YAML file."""
    for path in (FOLDER / f"{name_or_path}.yaml", Path(name_or_path)):
        if path.is_file():
            return read_yaml(path)
    names = ", ".join(recipe_names()) or "none"
    raise ConfigError(f"--config {name_or_path} is neither a file nor a recipe; recipes: {names}")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the framework."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def default_recipe(modality: str) -> str | None:
    """The recipe that a modality is trained by unless another is named: that of its name, or `tiny` in its folder."""
    names = recipe_names()
    return next((name for name in (modality, f"{modality.replace('-', '_')}/tiny") if name in names), None)
