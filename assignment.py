"""The assignment's side of the repo: is every requirement met, what to hand in, what the README shows.

    python assignment.py audit     one row a requirement, with the value measured; exit 1 if one is not met
    python assignment.py qna       the five answers, ready to paste
    python assignment.py readme    rewrites the machine-made parts of README.md
    python assignment.py figures   draws the pictures in Images/ anew

Each takes --run, the folder of the run to speak of: results/reference by default.
"""

import inspect
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import audit
import bench
import dataset
import plots
import records
import utils
from errors import CommandParser, UserError
from model import build, count_parameters, receptive_field, summary
from records import Run
from settings import PRESETS

REPO = Path(__file__).parent
RUN = REPO / "results" / "reference"
FAST = REPO / "results" / "fast"
README = REPO / "README.md"
IMAGES = REPO / "Images"
BENCH = REPO / "results" / "bench.json"
FACTS = {
    "data": dict,
    "device": str,
    "threads": int,
    "precision": str,
    "python": str,
    "versions": dict,
    "commit": str | None,
}
"""Of a run's record, what the README shows."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 if the audit or the check fails; a user's mistake exits with 2."""
    parser = CommandParser(
        prog="assignment.py", description="Audit the assignment, write its answers, or refresh the README."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("audit", "measure every requirement; exit 1 if one is not met"),
        ("qna", "print the five answers, ready to paste"),
        ("readme", "rewrite the machine-made parts of README.md"),
        ("figures", "draw the pictures in Images/ anew, from the run's records and weights, and the data"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("--run", type=Path, default=RUN, help="run folder to speak of (%(default)s)")
        if name == "readme":
            command.add_argument("--check", action="store_true", help="change nothing; exit 1 if out of date")
        if name == "figures":
            command.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    options = parser.parse_args(arguments)
    try:
        run = records.read(options.run)
        if options.command == "audit":
            return print_audit(run)
        if options.command == "qna":
            print(qna(run))
            return 0
        if run.settings.dataset != "cifar10" or run.settings.validation:
            raise UserError(f"{run.folder} is no run on CIFAR-10's test set: the README shows nothing else")
        if options.command == "figures":
            draw_figures(run, dataset.load(run.settings.dataset, options.data_dir), IMAGES)
            return 0
        return refresh_readme(run, options.check)
    except UserError as error:
        parser.error(str(error))


def print_audit(run: Run) -> int:
    """Audits the run's network, the live transforms and the run's records; 0 if all is met, else 1."""
    network = build(run.settings.model)
    checks = audit.audit(network, dataset.train_transform(probability=run.settings.augmentation), run)
    print(audit.format_checks(checks))
    return 0 if all(check.met for check in checks) else 1


def qna(run: Run) -> str:
    """The assignment's five questions and their answers, as Markdown, from the live sources and the run."""
    network = build(run.settings.model)
    transforms = "\n\n".join(
        inspect.getsource(function).rstrip()
        for function in (dataset.train_transform, dataset._shift_scale_rotate)
    )
    answers = (
        ("The model's code, model.py", _fenced((REPO / "model.py").read_text(), "python")),
        ("The output of torchsummary", _fenced(summary(network))),
        ("The code of the three Albumentations transforms", _fenced(transforms, "python")),
        (f"The training log, with a test after each epoch{_caution(run)}", _fenced(run.log)),
        ("The link to README.md", readme_link()),
    )
    return "\n\n".join(
        f"## {number}. {question}\n\n{answer}" for number, (question, answer) in enumerate(answers, 1)
    )


def write_qna(folder: Path) -> str:
    """Writes the answers for the run in `folder` to QnA.md there, and returns them."""
    answers = qna(records.read(folder))
    records.replace(folder / "QnA.md", (answers + "\n").encode())
    return answers


def _caution(run: Run) -> str:
    return "" if run.settings.dataset == "cifar10" else f" (of {run.settings.dataset.upper()}, NOT CIFAR-10)"


def _fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def readme_link(folder: Path = REPO) -> str:
    """The web address of README.md, from the git remote `origin`, without any password in it."""
    command = ["git", "remote", "get-url", "origin"]
    try:
        remote = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        remote = ""
    match = re.fullmatch(
        r"(?:https?://|ssh://|git@)(?:[^@/]*@)?([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?", remote
    )
    if match is None:
        return "This copy has no web address yet: push it to GitHub, clone it from there, and ask again."
    host, path = match.groups()
    return f"https://{host}/{path}/blob/HEAD/README.md"


def receptive_field_table(network_rows: list) -> str:
    """The rows of model.receptive_field as a Markdown table."""
    header = network_rows[0]._fields
    lines = [header, tuple("-" * len(name) for name in header), *network_rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def results_table(run: Run) -> str:
    """A run's claim and all that stands behind it, as a Markdown table.

    Raises UserError if the run's record lacks a fact.
    """
    lacking = [
        name for name, kind in FACTS.items() if name not in run.facts or not isinstance(run.facts[name], kind)
    ]
    if lacking or not isinstance(run.facts["data"].get("test"), int):
        raise UserError(
            f"{run.folder / records.SETTINGS} lacks {', '.join(lacking) or 'data'}: train it again"
        )
    network = build(run.settings.model)
    settings, facts, last = run.settings, run.facts, run.history[-1]
    seconds = sum(row.seconds for row in run.history)
    first_above = next((row.epoch for row in run.history if row.test_accuracy >= 85), None)
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    rows = [
        (
            "Test accuracy after the last epoch",
            f"**{last.test_accuracy:.2f}%** of {facts['data']['test']:,} images",
        ),
        ("Parameters", f"{count_parameters(network):,}"),
        ("Receptive field", f"{receptive_field(network)[-1].r_out} pixels"),
        ("Epochs", f"{settings.epochs} (85% first reached in epoch {first_above})"),
        ("Seed", str(settings.seed)),
        ("Device", f"{facts['device']}, {facts['precision']} training, last test in float32"),
        ("Time", f"{seconds / 60:.0f} minutes, tests included"),
        ("Versions", f"Python {facts['python']}, {versions}"),
        ("Code", f"commit `{facts['commit']}`"),
        ("Command", f"`{command_line(run)}`"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def command_line(run: Run) -> str:
    """The command that repeats a run; on a CPU its sums come out the same with as many threads alone."""
    settings = asdict(run.settings)
    name = next((name for name, preset in PRESETS.items() if preset.model == settings["model"]), "reference")
    preset = asdict(PRESETS[name])
    always = ("dataset", "epochs", "seed")
    changed = [key for key, value in settings.items() if value != preset[key] and key not in always]
    options = [f"--{key.replace('_', '-')} {settings[key]}" for key in (*always, *changed)]
    threads = "OMP_NUM_THREADS=1 " if run.facts["threads"] == 1 else ""
    return " ".join([f"{threads}python train.py --preset {name}", *options]).replace(
        "--validation True", "--validation"
    )


def readme_parts(run: Run) -> dict[str, str]:
    """The machine-made parts of the README by the name in their markers."""
    network = build(run.settings.model)
    return {
        "results": results_table(run),
        "summary": _fenced(summary(network)),
        "receptive-field": receptive_field_table(receptive_field(network)),
        "log": _fenced(run.log),
        "fast": results_table(records.read(FAST)),
        "benchmark": bench.format_report(bench.read_report(BENCH)),
    }


def fill(text: str, parts: dict[str, str]) -> str:
    """`text` with each part between its markers, `<!-- NAME: made by ... -->` and `<!-- end of NAME -->`.

    Raises UserError if a pair of markers is missing or is there twice.
    """
    for name, part in parts.items():
        pattern = rf"(<!-- {name}: made by `python assignment.py readme` -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(
            pattern, lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise UserError(
                f"README.md must hold the markers of {name!r} once, not {count} times: put them back"
            )
    return text


def draw_figures(run: Run, data: dataset.Data, folder: Path) -> None:
    """Writes the notebook's three pictures into `folder`, and scaling.png from the last benchmark."""
    network = build(run.settings.model)
    records.load_weights(run.folder, network)
    examples = dataset.augmentations_alone(data.mean, run.settings.seed)
    report = bench.read_report(BENCH)
    figures = {
        "Augmentation": plots.plot_augmentations(data.train_images[:10], examples, data.name),
        "metrics": plots.plot_metrics(run.history, data.name, run.settings.model),
        "results": plots.plot_misclassified(
            data.test_images, data.test_labels, utils.probabilities(network, data), data.classes, data.name
        ),
        "scaling": plots.plot_scaling(report["scaling"], report["device"]),
    }
    for name, figure in figures.items():
        print(plots.save(figure, folder / f"{name}.png"))


def refresh_readme(run: Run, check: bool) -> int:
    """Rewrites README.md, or with `check` says whether that would change it (1) or not (0)."""
    old = README.read_text()
    new = fill(old, readme_parts(run))
    if check:
        print(
            "README.md is up to date"
            if new == old
            else "README.md is out of date: run python assignment.py readme"
        )
        return int(new != old)
    records.replace(README, new.encode())
    print("README.md rewritten" if new != old else "README.md was up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
