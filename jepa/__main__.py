"""`jepa COMMAND ...`, also `python -m jepa COMMAND ...`."""

import difflib
import sys
from importlib import import_module

# Each command, the function that runs it, and what it does. A module is imported when its command is called.
COMMANDS = {
    "launch": ("jepa.launch:main", "pretrain, evaluate and report, here or on a cluster"),
    "evaluate": ("jepa.evaluate.__main__:main", "evaluate the frozen features of any encoder"),
    "compare": ("jepa.compare.command:main", "compare several encoders on the same data, in one table"),
    "data": ("jepa.data_check.command:main", "check data before a run: structure, bad files, speed, a picture"),
    "embed": ("jepa.embedding.command:main", "write the vector of every sample of a data set to one file"),
    "search": ("jepa.search.command:main", "find the nearest neighbours of files or sentences in such a file"),
    "report": ("jepa.report.page:main", "write report.html of a run"),
    "export": ("jepa.weights.export:main", "write the checkpoint of a run as one file"),
    "convert": ("jepa.weights.convert:main", "write a trained model for another library: transformers, timm, ONNX"),
    "card": ("jepa.share.print_card:main", "print the model card of trained networks"),
    "push": ("jepa.share.push:main", "share trained networks and their card on the Hugging Face Hub"),
    "schema": ("jepa.settings.schema:main", "print a JSON schema of the settings, for editors of YAML"),
    "modalities": ("jepa.plugins.commands:modalities", "list the installed modalities"),
    "new-modality": ("jepa.plugins.commands:new_modality", "write a package with a custom modality"),
    "jobs": ("jepa.cluster.status:jobs", "list submitted runs and why they failed"),
    "logs": ("jepa.cluster.status:logs", "print the log of a submitted run"),
    "cancel": ("jepa.cluster.status:cancel", "cancel submitted runs"),
    "sweep-report": ("jepa.cluster.sweep_report:main", "write the table and the plot of a sweep"),
}


def main() -> int:
    """Run the command that the command line names -> exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        module, _, function = COMMANDS[name][0].partition(":")
        status: int = getattr(import_module(module), function)(sys.argv[2:])
        return status
    if name in ("-h", "--help"):
        lines = [f"  {command:<14}{summary}" for command, (_, summary) in COMMANDS.items()]
        print("\n".join(["usage: jepa COMMAND ...", "", *lines, "", "`jepa COMMAND --help` explains a command."]))
        return 0
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f", did you mean '{near[0]}'?" if near else "."
    print(f"error: unknown command '{name}'{hint} Commands: {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
