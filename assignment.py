"""The assignment's side of the repo: is every requirement met, what to hand in, what the README shows.

    python assignment.py audit     one row a requirement, with the value measured; exit 1 if one is not met
    python assignment.py qna       the five answers, ready to paste
    python assignment.py figures   draws the pictures in Images/ anew
    python assignment.py readme    rewrites the machine-made parts of README.md, and results/SHA256SUMS

Each takes --run, the folder of the run to speak of: results/best by default, or results/reference where that
is not there.
"""

import inspect
import json
import re
import sys
from pathlib import Path

import analysis
import audit
import bench
import claims
import dataset
import evidence
import explain
import plots
import records
import stamp
import style
import utils
from errors import CommandParser, UserError
from model import build, count_parameters, receptive_field, summary
from records import Run

REPO = Path(__file__).parent
README = REPO / "README.md"
IMAGES = REPO / "Images"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 if the audit or the check fails; a user's mistake exits with 2."""
    parser = CommandParser(
        prog="assignment.py", description="Audit the assignment, write its answers, or refresh the README."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("audit", "measure every requirement; exit 1 if one is not met"),
        ("qna", "print the five answers, ready to paste"),
        ("figures", "draw the pictures in Images/ anew, from the run's records and weights, and the data"),
        ("readme", "rewrite the machine-made parts of README.md, and the checksums of the evidence"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--run", type=Path, default=handed_in(), help="run folder to speak of (%(default)s)"
        )
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
        if options.command == "figures":
            claims.read_seeds(run.folder)  # Says so where nothing can be claimed of the run.
            draw_figures(run, dataset.load(run.settings.dataset, options.data_dir), IMAGES)
            return 0
        return check_readme(run.folder) if options.check else refresh_readme(run.folder)
    except UserError as error:
        parser.error(str(error))


def handed_in() -> Path:
    """The run that this page leads with."""
    return records.leading_run(REPO / "results")


def print_audit(run: Run) -> int:
    """Audits the run's network, the live transforms and the run's records; 0 if all is met, else 1."""
    network = build(run.settings.model)
    how = {"probability": run.settings.augmentation, "shift": run.settings.shift}
    checks = audit.audit(network, dataset.train_transform(**how), run)
    print(audit.format_checks(checks))
    return 0 if all(check.met for check in checks) else 1


def qna(run: Run) -> str:
    """The assignment's five questions and their answers, as Markdown, from the live sources and the run.

    Raises UserError if the network is too large to hand in, or the run's weights are missing or another's.
    """
    network = build(run.settings.model)
    count = count_parameters(network)
    if count >= audit.PARAMETER_LIMIT:
        raise UserError(
            f"{run.folder} has {count:,} parameters, the assignment allows fewer than "
            f"{audit.PARAMETER_LIMIT:,}: hand in a run of another network (--run)"
        )
    records.load_weights(run.folder, network)
    transforms = "\n\n".join(
        inspect.getsource(function).rstrip()
        for function in (dataset.train_transform, dataset._shift_scale_rotate)
    )
    answers = (
        (
            f"The model's code, model.py; the network is {type(network).__name__}",
            _fenced(Path(__file__).with_name("model.py").read_text(), "python"),
        ),
        ("The output of torchsummary", _fenced(summary(network))),
        (
            "The code of the three Albumentations transforms; "
            f"probability is {run.settings.augmentation:g}, shift {run.settings.shift:g}",
            _fenced(transforms, "python"),
        ),
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
    """The web address of README.md: the git remote `origin`'s, without any password, else the stamped one."""
    remote = r"(?:https?://|ssh://|git@)(?:[^@/]*@)?([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?"
    if match := re.fullmatch(remote, stamp.origin(folder)):
        return f"https://{match[1]}/{match[2]}/blob/HEAD/README.md"
    if address := stamp.stamped(folder):
        return f"https://github.com/{address}/blob/HEAD/README.md"
    return "This copy has no web address yet: push it to GitHub, clone it from there, and ask again."


def receptive_field_table(network_rows: list) -> str:
    """The rows of model.receptive_field as a Markdown table."""
    header = network_rows[0]._fields
    lines = [header, tuple("-" * len(name) for name in header), *network_rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def faults_table(path: Path) -> str:
    """What `S9_LONG=1 make test` tried last, and how it ended, as a Markdown table."""
    record = json.loads(path.read_text())
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    lines = [f"{record['date']}, Python {record['python']}, {versions}", ""]
    lines += ["| what went wrong | what happens | times tried |", "| --- | --- | ---: |"]
    lines += [f"| {row['fault']} | {row['outcome']} | {row['times']:,} |" for row in record["tried"]]
    return "\n".join(lines)


def readme_parts(folder: Path) -> dict[str, str]:
    """The machine-made parts of the README by the name in their markers; `folder`: the run it leads with."""
    results = REPO / "results"
    runs, networks = claims.read_seeds(folder), claims.read_networks(results)
    shorter = [run for name in ("notebook", "short") for run in claims.read_seeds(results / name)]
    network = build(runs[0].settings.model)
    parts = {
        "results": claims.results_table(runs, REPO),
        "shorter": claims.runs_table(shorter, REPO),
        "networks": claims.networks_table(networks),
        "summary": _fenced(summary(network)),
        "receptive-field": receptive_field_table(receptive_field(network)),
        "log": _fenced(runs[0].log),
        "validation": claims.validation_table(claims.read_trials(results / "validation.csv")),
        "faults": faults_table(results / "faults.json"),
        "benchmark": bench.format_report(bench.read_report(results / "bench.json")),
        "accelerate": bench.format_report(bench.read_report(results / "accelerate.json")),
    }
    for name in networks.keys() - {handed_in().name}:  # Sections of their own.
        parts[name] = claims.results_table(networks[name], REPO)
        if name == "dilated":
            parts[name] += f"\n\n{receptive_field_table(receptive_field(build(name)))}"
    return parts


def fill(text: str, parts: dict[str, str]) -> str:
    """`text` with each part between its markers, `<!-- NAME: made by ... -->` and `<!-- end of NAME -->`.

    Raises UserError if a pair of markers is missing or is there twice, or if there is a pair without a part.
    """
    for name in re.findall(r"<!-- (\S+): made by `python assignment.py readme` -->", text):
        if name not in parts:
            raise UserError(f"README.md has a part {name!r} that no run is there for: take it out")
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
    """Writes the notebook's pictures into `folder`, and what the records of all networks make."""
    results = REPO / "results"
    report = bench.read_report(results / "bench.json")
    ours = [
        plots.Point(name, count_parameters(build(name)), *claims.accuracy(runs))
        for name, runs in claims.read_networks(results).items()
    ]
    public = [plots.Point(*mark[:3]) for mark in claims.read_marks(results / "public.csv")]
    figures = {
        **_run_figures(run, data),
        "accuracy": plots.plot_accuracy(ours, public, audit.PARAMETER_LIMIT, audit.ACCURACY_LIMIT),
        "scaling": plots.plot_scaling(report["scaling"], report["device"]),
    }
    for name, figure in figures.items():
        print(style.save(figure, folder / f"{name}.png"))


def _run_figures(run: Run, data: dataset.Data) -> dict[str, style.NotebookFigure]:
    """The notebook's pictures, of a run."""
    network = build(run.settings.model)
    records.load_weights(run.folder, network)
    augmentations = dataset.augmentations_alone(
        data.mean, run.settings.seed, run.settings.augmentation, run.settings.shift
    )
    images, labels, classes, name = data.test_images, data.test_labels, data.classes, data.name
    probabilities = utils.probabilities(network, data)
    return {
        "Augmentation": explain.plot_augmentations(data.train_images[:10], augmentations, name),
        "receptive_field": explain.plot_receptive_field(images[0], receptive_field(network), name),
        "metrics": plots.plot_metrics(run.history, name, run.settings.model),
        "confusion": explain.plot_confusion(labels, probabilities, classes, name),
        "results": explain.plot_misclassified(images, labels, probabilities, classes, name),
        "gradcam": explain.plot_grad_cam(*analysis.explained(network, data, probabilities), classes, name),
        "kernels": explain.plot_kernels(*analysis.first_layer(network, images[0], data.mean, data.std), name),
        "calibration": explain.plot_calibration(analysis.calibration(labels, probabilities), name),
    }


def refresh_readme(folder: Path) -> int:
    """Rewrites README.md and the checksums of the evidence; returns 0.

    Raises UserError, and changes nothing, if a log and its history disagree.
    """
    if lines := _disagreements():
        raise UserError(f"{lines[0]}: bring back the files as the run wrote them")
    old = README.read_text()
    new = fill(old, readme_parts(folder))
    records.replace(README, new.encode())
    evidence.write_checksums(REPO)
    print("README.md rewritten" if new != old else "README.md was up to date")
    return 0


def check_readme(folder: Path) -> int:
    """Says what `refresh_readme` would change, and where logs and histories disagree; 0 if nothing."""
    lines = [*evidence.changed_files(REPO), *_disagreements()]
    for line in lines:
        print(line)
    text = README.read_text()
    if fill(text, readme_parts(folder)) != text:
        lines.append("README.md is out of date")
        print(lines[-1])
    end = "if that is meant, run python assignment.py readme" if lines else "README.md is up to date"
    print(end)
    return int(bool(lines))


def _disagreements() -> list[str]:
    runs = [records.read(folder) for folder in evidence.run_folders(REPO)]
    named = [run._replace(folder=run.folder.relative_to(REPO)) for run in runs]
    return [line for run in named for line in evidence.disagreements(run)]


if __name__ == "__main__":
    sys.exit(main())
