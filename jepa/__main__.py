"""`jepa COMMAND ...`, also `python -m jepa COMMAND ...`."""

import sys


def main() -> int:
    """Hand the command line to the module of its command."""
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    match command:
        case "launch":
            from jepa.launch import main as launch

            return launch(arguments)
        case "evaluate":
            from jepa.evaluate.__main__ import main as evaluate

            return evaluate(arguments)
        case "report":
            from jepa.report.page import main as report

            return report(arguments)
        case "export":
            from jepa.weights.export import main as export

            return export(arguments)
        case "modalities":
            from jepa.plugins.commands import modalities

            return modalities(arguments)
        case "new-modality":
            from jepa.plugins.commands import new_modality

            return new_modality(arguments)
        case "jobs" | "logs" | "cancel":
            from jepa.cluster import status

            return {"jobs": status.jobs, "logs": status.logs, "cancel": status.cancel}[command](arguments)
        case "sweep-report":
            from jepa.cluster.sweep_report import main as sweep_report

            return sweep_report(arguments)
        case _:
            print(
                "usage: jepa launch|evaluate|report|export|modalities|new-modality|jobs|logs|cancel|sweep-report ... "
                "(each explains itself by --help)",
                file=sys.stderr,
            )
            return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
