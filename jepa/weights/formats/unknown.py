"""What a file of no readable format is, as far as its names tell, and what to do with it."""

from collections.abc import Iterator, Mapping
from typing import Any

from jepa.weights.formats.stored import Stored

_SHOWN = 4  # names in a message


def what_it_is(stored: Stored) -> str:
    """One clause about the content of a file."""
    content, kind = stored.content, stored.config.get("model_type")
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__} instead of networks by name"
    if isinstance(kind, str) and kind not in ("ijepa", "vjepa2"):
        return f"its config.json says that it is '{kind}' of transformers, of which ijepa and vjepa2 can be read"
    names = set(_names(content))
    if any("action_encoder." in name for name in names):
        return "it is V-JEPA 2-AC, whose predictor reads actions; load the encoder from vitg.pt of V-JEPA 2"
    if any(name.startswith(("visual.", "text_model.", "transformer.resblocks.")) for name in names):
        return "it is of CLIP or SigLIP; name it as open_clip:NAME@FILE or timm:NAME@FILE"
    if {"student", "teacher"} <= set(content) or any(name.endswith(("cls_token", "register_tokens")) for name in names):
        return "it is a vision transformer with a class token, such as MAE or DINO; name it as timm:NAME@FILE"
    found = ", ".join(sorted(map(str, content))[:_SHOWN]) or "nothing"
    return f"it holds {found}{', ...' if len(content) > _SHOWN else ''}"


def _names(content: Mapping[Any, Any]) -> Iterator[str]:
    """Names of the weights, also of networks inside."""
    for name, value in content.items():
        yield str(name)
        if isinstance(value, Mapping):
            yield from (str(key).removeprefix("module.").removeprefix("backbone.") for key in value)
