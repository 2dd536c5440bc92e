"""`jepa card RUN`: the model card of trained networks, without sharing them."""

from collections.abc import Sequence
from pathlib import Path

from jepa.console import command_parser
from jepa.disk import write_text
from jepa.errors import exit_status
from jepa.share.card import write_card
from jepa.share.exports import possible_exports
from jepa.share.folder import Request, gather
from jepa.share.push import add_source


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa card` -> exit status."""
    parser = command_parser("card", "Print the model card of trained networks.", "runs/demo", "runs/demo -o README.md")
    add_source(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write instead of printing")
    parser.add_argument("--name", help="user/name, or another title (default: name of the run directory)")
    arguments = parser.parse_args(argv)

    def run() -> int:
        name = arguments.name or Path(arguments.source).resolve().name
        request = Request(
            arguments.source, name, name, arguments.licence, arguments.step, pictures=False, trust=arguments.trust
        )
        exports = possible_exports(arguments.source, arguments.trust, arguments.step)
        card = write_card(gather(request), arguments.licence, f"hf://{name}" if "/" in name else name, exports)
        if arguments.output is None:
            print(card, end="")
        else:
            write_text(arguments.output, card, arguments.output.with_name(f"{arguments.output.name}.partial"))
        return 0

    return exit_status(run)
