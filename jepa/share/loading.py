"""How to load shared networks in three libraries, as Markdown."""

import shlex

from jepa.share.exports import FILES, Exports
from jepa.share.facts import Facts
from jepa.weights.formats.export import PLACE, quoted

_LIBRARIES = {"hf": "transformers", "timm": "timm", "onnx": "onnxruntime"}


def loading(facts: Facts, source: str, exports: Exports) -> str:
    """Code for jepa, transformers and timm; where a library cannot load them, a sentence says so."""
    others = [_other(name, source, exports) for name in ("hf", "timm")]
    if "onnx" in exports.usage:
        others.append(_other("onnx", source, exports))
    return "\n\n".join([_ours(facts, source, exports.matched), *others])


def _ours(facts: Facts, source: str, matched: bool) -> str:
    modality = str(facts.config["modality"])
    trust = ", trust=True" if ":" in modality else ""
    needs = f", and the package that holds `{modality}`" if trust else ""
    lines = ["import jepa", f"encoder = jepa.load({quoted(source)}{trust})"]
    if not matched:
        lines.insert(1, "from torch.utils.data import default_collate\n")
        lines.append(f"modality = jepa.load_modality({quoted(source)}{trust})")
        lines.append("tokens = encoder(default_collate([modality.evaluation_view(inputs)]))  # [1, N, D]")
    return _block(f"With openjepa (`pip install openjepa`){needs}", "\n".join(lines))


def _other(name: str, source: str, exports: Exports) -> str:
    library, file = _LIBRARIES[name], FILES[name]
    if usage := exports.usage.get(name):
        return _block(f"With {library}, from `{file}`", _code(name, source, usage))
    if name not in exports.obstacles:
        return f"Whether {library} can load an export of it was not tried."
    if obstacle := exports.obstacles[name]:
        return f"{library[0].upper()}{library[1:]} cannot load an export of it, as it has no place for {obstacle}."
    command = f"jepa convert {shlex.quote(source)} {file.rpartition('/')[2]} --to {name}"
    return f"For {library}, `{command}` writes an export, which is not included here."


def _code(name: str, source: str, usage: str) -> str:
    """What `jepa convert` says of a file, with its place in the repository or folder."""
    call, _, remark = usage.partition("), for ")
    result = "features" if ".run(" in usage else "model"
    lines = [f"# for {remark}"] * bool(remark) + [f"{result} = {call})" if remark else f"{result} = {usage}"]
    imports, file = [f"import {usage.partition('.')[0]}"], FILES[name]
    repository, _, revision = source.removeprefix("hf://").partition("@")
    at = f', revision="{revision}"' if revision else ""
    if not source.startswith("hf://"):
        place = quoted(f"{source}/{file}")
    elif name == "hf":
        place = f'"{repository}", subfolder="{file}"{at}'
    else:
        place = f'hf_hub_download("{repository}", "{file}"{at})'
        imports.append("from huggingface_hub import hf_hub_download")
    return "\n".join([*imports, "", *lines]).replace(PLACE, place)


def _block(title: str, code: str) -> str:
    return f"{title}:\n\n```python\n{code}\n```"
