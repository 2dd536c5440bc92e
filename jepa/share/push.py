"""`jepa push RUN user/name`: share trained networks with their model card on the Hugging Face Hub."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa.config import ConfigError
from jepa.console import CONSOLE, add_step, command_parser, shown
from jepa.errors import UserError, exit_status
from jepa.share.exports import FILES
from jepa.share.folder import Request, run_dir_of, shared_files, write_shared
from jepa.share.licences import UNKNOWN
from jepa.weights.hub import REPOSITORY, Place, endpoint, hub_reason


class PushError(UserError, RuntimeError):
    """The hub did not take a folder; the message is one sentence for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa push` -> exit status."""
    text = "Share trained networks with a generated model card on the Hugging Face Hub."
    parser = command_parser(
        "push", text, "runs/demo alice/demo --licence mit --private", "runs/demo alice/demo --dry-run"
    )
    add_source(parser)
    parser.add_argument("repository", metavar="user/name", help="repository on the hub; it is created if it is new")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, created if it is new (default: main)")
    parser.add_argument("--pictures", action="store_true", help="send figures that show samples of your data, too")
    parser.add_argument(
        *("--with",),
        dest="formats",
        action="append",
        default=[],
        choices=FILES,
        help="include an export; can be repeated",
    )
    parser.add_argument("--folder", type=Path, help="where to write the folder that is sent (default: RUN/share)")
    parser.add_argument(
        "--dry-run", action="store_true", help="write the folder and print what would be sent; needs no user/"
    )
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _push(arguments))


def add_source(parser: argparse.ArgumentParser) -> None:
    """Options that `jepa push` and `jepa card` share."""
    parser.add_argument("source", metavar="RUN", help="run directory, checkpoint file, or any other source of networks")
    parser.add_argument(
        *("--licence", "--license"), default=UNKNOWN, metavar="ID", help="licence of the weights, such as apache-2.0"
    )
    add_step(parser)
    parser.add_argument("--trust", action="store_true", help="import code that the run names, to count its data")


def _push(arguments: argparse.Namespace) -> int:
    name = arguments.repository
    stays_here = arguments.dry_run and "/" not in name
    if not (stays_here or REPOSITORY.fullmatch(name)):
        raise ConfigError(f"'{name}' is not of the form user/name")
    place = Place(name, arguments.revision)
    request = Request(
        arguments.source,
        name,
        name if stays_here else f"hf://{name}" + (f"@{place.revision}" if place.revision else ""),
        *(arguments.licence, arguments.step, arguments.pictures, arguments.formats, arguments.trust),
    )
    folder = arguments.folder or _default_folder(arguments.source, name)
    warnings = write_shared(request, folder)
    _say(folder, place, arguments, warnings)
    if not arguments.dry_run:
        CONSOLE.print(f"sent: {shown(upload(folder, place, arguments.private))}")
    return 0


def upload(folder: Path, place: Place, private: bool) -> str:
    """Create the repository and the branch if they are new, and send the folder as one commit -> its address.

    Files of an earlier push that this one does not have are deleted, if they are figures or exports. Raises PushError.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise PushError("to push, log in with `hf auth login` or set HF_TOKEN to a token that may write")
    api = HfApi(endpoint=endpoint())
    try:
        api.create_repo(place.repository, private=private or None, exist_ok=True)
        if private and not api.model_info(place.repository).private:
            raise PushError(
                f"{place.repository} exists and is public; nothing was sent: make it private on its page first"
            )
        if place.revision is not None:
            api.create_branch(place.repository, branch=place.revision, exist_ok=True)
        commit: Any = api.upload_folder(
            repo_id=place.repository,
            folder_path=folder,
            revision=place.revision,
            commit_message="Networks and card, by jepa push",
            delete_patterns=["figures/*", *(f"{name}/*" for name in FILES)],
        )
    except PushError:
        raise
    except Exception as error:
        if not (reason := hub_reason(error, place)):
            raise
        raise PushError(f"{place.repository} was not pushed: {reason}") from error
    return str(commit.commit_url)


def _default_folder(source: str, name: str) -> Path:
    run_dir = run_dir_of(source)
    return run_dir / "share" if run_dir else Path(name.partition("/")[2])


def _say(folder: Path, place: Place, arguments: argparse.Namespace, warnings: Sequence[str]) -> None:
    """Print what is, or would be, sent."""
    would = "would be sent" if arguments.dry_run else "is sent"
    kind = "private" if arguments.private else "public, unless it exists and is private"
    branch = f", branch {place.revision}" if place.revision else ""
    to = f" {would} to {endpoint()}/{place.repository} ({kind}{branch})" if "/" in place.repository else " is written"
    CONSOLE.print(f"{shown(folder)}{to}:")
    for name, size in shared_files(folder):
        CONSOLE.print(f"  {shown(name)}  {size:,} bytes")
    if arguments.licence == UNKNOWN:
        CONSOLE.print("licence: unknown, so nobody may rely on one; name it with --licence", style="yellow")
    for warning in warnings:
        CONSOLE.print(f"warning: {shown(warning)}", style="yellow")
