"""The assignment's side of the repo: is every requirement met, what to hand in, what the README shows.

    python assignment.py audit     one row a requirement, with the value measured; exit 1 if one is not met
    python assignment.py qna       the five answers, ready to paste
    python assignment.py handin    makes your run the one that README.md, Images/ and the answers show
    python assignment.py figures   draws the pictures in Images/ anew
    python assignment.py readme    rewrites the machine-made parts of README.md

Each takes --run, the folder of the run to speak of: results/best by default, or results/reference where that
is not there.
"""

import sys
from pathlib import Path

from s9 import records
from s9.data.sources import load
from s9.errors import CommandParser, UserError
from tools import answers, audit, claims, handin, report


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 if the audit or the check fails; a user's mistake exits with 2."""
    parser = CommandParser(
        prog="assignment.py", description="Audit the assignment, write its answers, or refresh the README."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("audit", "measure every requirement; exit 1 if one is not met"),
        ("qna", "print the five answers, ready to paste"),
        ("handin", "make your run the one that README.md, Images/ and the answers show; push nothing"),
        ("figures", "draw the pictures in Images/ anew, from the run's records and weights, and the data"),
        ("readme", "rewrite the machine-made parts of README.md"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--run", type=Path, default=report.handed_in(), help="run folder to speak of (%(default)s)"
        )
        if name == "readme":
            command.add_argument("--check", action="store_true", help="change nothing; exit 1 if out of date")
        if name in ("audit", "figures", "handin"):
            command.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    options = parser.parse_args(arguments)
    try:
        run = records.read(options.run)
        if options.command == "audit":
            return audit.print_audit(run, data_dir=options.data_dir)
        if options.command == "qna":
            print(answers.qna(run))
            return 0
        if options.command == "handin":
            handin.hand_in(options.run, options.data_dir)
            print(f"ready to push:\n{handin.git_lines()}")
            return 0
        if options.command == "figures":
            claims.read_seeds(run.folder)  # Says so where nothing can be claimed of the run.
            report.draw_figures(run, load(run.settings.dataset, options.data_dir), report.IMAGES)
            return 0
        check = options.check
        return report.check_readme(run.folder) if check else report.refresh_readme(run.folder)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
