"""Folders of weights on the Hugging Face Hub: `hf://user/name` or `hf://user/name@revision`."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from jepa.checkpoint import CheckpointError

# What may be downloaded. Names are given in full: no code, no pickles, no folders, no `..`.
_FILES = [
    *("config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json"),
    *("video_preprocessor_config.json", "results.json"),
    f"model-{'[0-9]' * 5}-of-{'[0-9]' * 5}.safetensors",
]
_NAME = r"[A-Za-z0-9][\w.-]*"
REPOSITORY = re.compile(f"{_NAME}/{_NAME}", re.ASCII)  # user/name
_PLACE = re.compile(rf"(?i:hf):/{{1,2}}(?P<repository>{_NAME}/{_NAME})(@(?P<revision>[\w./-]+))?", re.ASCII)


class Place(NamedTuple):
    """A repository on the hub, and one of its branches, tags or commits, None for its main branch."""

    repository: str
    revision: str | None = None


def is_hub(source: Path | str) -> bool:
    """Whether a source is on the hub. A path has one slash where the text had two."""
    return str(source)[:4].lower() == "hf:/"


def parsed(source: Path | str) -> Place:
    """Repository and revision of `hf://user/name@revision`; raises CheckpointError."""
    found = _PLACE.fullmatch(str(source))
    if found is None or ".." in str(source):
        raise CheckpointError(f"'{source}' is not of the form hf://user/name or hf://user/name@revision")
    return Place(found["repository"], found["revision"])


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, read now instead of when huggingface_hub is imported."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def download(source: Path | str) -> Path:
    """Download networks and config of a repository -> their folder in the cache of huggingface_hub.

    Nothing is downloaded twice. Without a connection an earlier download is used. Raises CheckpointError.
    """
    from huggingface_hub import snapshot_download

    place = parsed(source)
    try:
        return Path(
            snapshot_download(
                place.repository, revision=place.revision, allow_patterns=_FILES, endpoint=endpoint(), max_workers=2
            )
        )
    except Exception as error:
        if not (reason := hub_reason(error, place)):
            raise
        raise CheckpointError(f"{source}: {reason}") from error


def hub_reason(error: BaseException | None, place: Place) -> str:
    """What went wrong at the hub and what to do, in words; "" for an error that is not the hub's."""
    while error is not None:
        if reason := _reason(error, place):
            return reason
        error = error.__cause__
    return ""


def _reason(error: BaseException, place: Place) -> str:
    from huggingface_hub import errors

    page, login = f"{endpoint()}/{place.repository}", "run `hf auth login` or set HF_TOKEN"
    match error:
        case errors.GatedRepoError():
            return f"access must be asked for at {page}; then {login}"
        case errors.RepositoryNotFoundError():
            return f"there is no such repository at {endpoint()}, or it is private; for a private one {login}"
        case errors.RevisionNotFoundError():
            return f"the repository has no branch, tag or commit '{place.revision or 'main'}'"
        case errors.LocalTokenNotFoundError():
            return f"a token is needed; {login}"
        case errors.HfHubHTTPError():
            return _refusal(error, login)
        case errors.LocalEntryNotFoundError():
            return f"{endpoint()} cannot be reached, and there is no earlier download of it; check the connection"
        case OSError() if "onsistency check failed" in str(error):
            return "the download is incomplete; run the same command again"
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests"):
        return f"{endpoint()} cannot be reached ({type(error).__name__}); check the connection"
    return ""


def _refusal(error: Exception, login: str) -> str:
    """What the hub answered, in words."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = getattr(error, "server_message", None) or (str(error).splitlines() or [type(error).__name__])[0]
    if status in (401, 403):
        return f"the hub refuses the token or its rights ({said}); {login} with a token that may do this"
    return f"the hub answered {status}: {said}"
