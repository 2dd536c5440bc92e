"""Where a source of weights lies on this machine; names on the Hugging Face Hub and of timm are downloaded."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from jepa.checkpoint import CheckpointError
from jepa.weights.demos import named
from jepa.weights.families.files import downloaded
from jepa.weights.families.names import FamilyName, family_name
from jepa.weights.hub import REPOSITORY, download, is_hub

_FILES = {".pt", ".pth", ".tar", ".safetensors", ".bin"}


def located(source: Path | str) -> Path:
    """The file or folder of a source: a path, `hf://user/name`, `user/name`, `demo-image`, or I-JEPA by timm's name.

    Raises CheckpointError for a name that cannot be downloaded. A path need not exist.
    """
    if source == "":
        raise CheckpointError("the source is empty; name a run directory, a checkpoint, or other weights")
    if is_hub(source):
        return download(source)
    if ijepa := ijepa_of_timm(source):
        return ijepa.file if ijepa.weights else _timm_file(ijepa)
    path = Path(source)
    if found := named(source):
        return found
    if not _is_repository(path):
        return path
    try:
        return download(f"hf://{path}")
    except CheckpointError as error:
        raise CheckpointError(f"there is no file or folder {path}; as a name on the hub, {error}") from error


def ijepa_of_timm(source: Path | str) -> FamilyName | None:
    """The name of an I-JEPA of timm, whose files hold our architecture; None for any other source."""
    found = family_name(source)
    is_ijepa = found is not None and found.library == "timm" and found.model.endswith("_ijepa")
    return found if is_ijepa and found is not None and not found.is_random else None


def _is_repository(path: Path) -> bool:
    """Whether a name can be one on the hub: `user/name`, where no such path, or folder of that user, exists."""
    is_free = not os.path.lexists(path) and not path.parent.exists() and path.parent != Path("runs")
    return is_free and path.suffix not in _FILES and REPOSITORY.fullmatch(str(path)) is not None


def _timm_file(name: FamilyName) -> Path:
    """The weights that timm names for an I-JEPA: its authors' file, or a folder on the hub."""
    import timm
    import torch

    known = timm.list_models("*_ijepa", pretrained=True)
    if name.model not in known:
        raise CheckpointError(f"timm has no {name.model}; its I-JEPAs: {', '.join(known)}")
    config = timm.get_pretrained_cfg(name.model)
    assert config is not None
    if config.hf_hub_id:
        return download(f"hf://{config.hf_hub_id}")
    url = str(config.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name  # where timm keeps it too

    def fetch() -> str:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        return str(path)

    return downloaded(name, url, fetch)
