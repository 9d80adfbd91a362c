"""Audits the assignment, writes its answers, and makes the pages and pictures of this repository.

`python assignment.py --help` lists the commands. --run names the folder of the run, by default
results/handin, results/best or results/reference, the first that exists; handin has no default.
"""

from pathlib import Path

from s9 import records
from s9.data.sources import load
from s9.errors import CommandParser, UserError, run_command
from tools import answers, audit, claims, handin, report


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns 0, or 1 if the audit or the check fails; a UserError exits with 2."""
    parser = CommandParser(
        prog="assignment.py", description="Audit the assignment, write its answers, or update the pages."
    )
    leading = records.leading_run(report.REPO / "results")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("audit", "measure every requirement; exit with 1 if one is not met"),
        ("qna", "print the five answers, ready to paste"),
        ("handin", "make your run the one that README.md and Images/ show; nothing is pushed"),
        ("figures", "draw the pictures in Images/ from the run and the data"),
        ("readme", "write the generated parts of the pages"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        place = "folder of the run" if name == "handin" else "folder of the run; default: README.md's"
        command.add_argument("--run", type=Path, default=leading, required=name == "handin", help=place)
        if name == "readme":
            command.add_argument("--check", action="store_true", help="change nothing; exit 1 if out of date")
        if name in ("audit", "figures", "handin"):
            command.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    options = parser.parse_args(arguments)
    try:
        run = records.read(options.run)
        if options.command == "audit":
            return audit.print_audit(run, data_dir=options.data_dir)
        if options.command == "readme":
            return report.refresh_readme(run.folder, options.check)
        if options.command == "qna":
            print(answers.qna(run))
        elif options.command == "handin":
            handin.hand_in(options.run, options.data_dir)
            print(f"ready to push:\n{handin.git_lines()}")
        else:
            claims.read_seeds(run.folder)  # Raises UserError if it is no whole run on CIFAR-10's test set.
            report.draw_figures(run, load(run.settings.dataset, options.data_dir), report.REPO / "Images")
    except UserError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    run_command(main)
