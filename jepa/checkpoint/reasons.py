"""Why a file of torch.save cannot be read, in words: torch's own advice is to execute what is in it."""

import pickle
import re
from pathlib import Path

from jepa.checkpoint.places import FOLDER

_CODE = re.compile(r"GLOBAL (\S+)")
_GRAPHS = {".pt2": "torch.export.load(FILE).module()", ".onnx": "onnxruntime.InferenceSession(FILE)"}


def why_unreadable(path: Path, error: BaseException) -> str:
    """What is wrong with a file that torch.load refused."""
    text = str(error)
    first_line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    if not path.is_file():
        return first_line
    again = "" if path.parent.name == FOLDER else "; download or copy it again"  # what a run wrote has no source
    if not path.stat().st_size:
        return f"it is empty{again}"
    if call := _GRAPHS.get(path.suffix):
        return f"it is an exported graph, which holds no networks to take apart; load it with {call}"
    if isinstance(error, pickle.UnpicklingError) and (found := _CODE.search(text)):
        return f"it names {found[1]}, and code in a file is never executed; only tensors and plain values are read"
    if "legacy .tar format" in text:
        return "it is a tar archive, as torch wrote it before 2018; save it again with a newer torch"
    if "PytorchStreamReader" in text or "unexpected EOF" in text or isinstance(error, EOFError):
        return f"it is truncated or damaged{again}"
    if isinstance(error, (pickle.UnpicklingError, KeyError, IndexError, UnicodeDecodeError)):
        return "it is no file of torch.save"
    return first_line
