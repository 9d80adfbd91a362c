"""Writes the pages: the machine-made parts of README.md, the pictures in Images/."""

import re
from pathlib import Path

import dataset
import utils
from model import count_parameters
from s9 import files, records
from s9.analysis import interpret
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import receptive_field_table, summary
from s9.errors import UserError
from s9.plots import curves, diagnostics, style
from s9.records import Run
from tools import audit, benchmark, claims, evidence
from tools.answers import _fenced

REPO = Path(__file__).parent.parent


README = REPO / "README.md"


IMAGES = REPO / "Images"


def handed_in() -> Path:
    """The run that this page leads with."""
    return records.leading_run(REPO / "results")


def readme_parts(folder: Path) -> dict[str, str]:
    """The machine-made parts of the README by the name in their markers; `folder`: the run it leads with."""
    results = REPO / "results"
    runs, networks = claims.read_seeds(folder), claims.read_networks(results)
    shorter = [run for name in ("notebook", "short") for run in claims.read_seeds(results / name)]
    network = utils.new_network(runs[0].settings.model)
    parts = {
        "results": claims.results_table(runs, REPO),
        "shorter": claims.runs_table(shorter, REPO),
        "networks": claims.networks_table(networks),
        "summary": _fenced(summary(network)),
        "receptive-field": receptive_field_table(receptive_field(network)),
        "log": _fenced(runs[0].log),
        "validation": claims.validation_table(claims.read_trials(results / "validation.csv")),
        "benchmark": benchmark.format_report(benchmark.read_report(results / "bench.json")),
        "accelerate": benchmark.format_report(benchmark.read_report(results / "accelerate.json")),
    }
    for name in networks.keys() - {handed_in().name}:  # Sections of their own.
        parts[name] = claims.results_table(networks[name], REPO)
        if name == "dilated":
            parts[name] += f"\n\n{receptive_field_table(receptive_field(utils.new_network(name)))}"
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


PICTURES = (
    "Augmentation",
    "receptive_field",
    "metrics",
    "confusion",
    "results",
    "gradcam",
    "kernels",
    "calibration",
)
"""The pictures of a run, in the notebook's order."""


def draw_run(run: Run, data: dataset.Data, folder: Path) -> None:
    """Writes the pictures of a run into `folder`."""
    for name, figure in _run_figures(run, data).items():
        style.save(figure, folder / f"{name}.png")


def draw_figures(run: Run, data: dataset.Data, folder: Path) -> None:
    """Writes the notebook's pictures into `folder`, and what the records of all networks make."""
    results = REPO / "results"
    report = benchmark.read_report(results / "bench.json")
    ours = [
        curves.Point(name, count_parameters(utils.new_network(name)), *claims.accuracy(runs))
        for name, runs in claims.read_networks(results).items()
    ]
    public = [curves.Point(*mark[:3]) for mark in claims.read_marks(results / "public.csv")]
    figures = {
        **_run_figures(run, data),
        "accuracy": curves.plot_accuracy(ours, public, audit.PARAMETER_LIMIT, audit.ACCURACY_LIMIT),
        "scaling": curves.plot_scaling(report["scaling"], report["device"]),
    }
    for name, figure in figures.items():
        print(style.save(figure, folder / f"{name}.png"))


def _run_figures(run: Run, data: dataset.Data) -> dict[str, style.NotebookFigure]:
    """The notebook's pictures, of a run."""
    network = utils.trained_network(run, data)
    augmentations = dataset.augmentations_alone(
        data.mean, run.settings.seed, run.settings.augmentation, run.settings.shift
    )
    images, labels, classes, name = data.test_images, data.test_labels, data.classes, data.name
    probabilities = utils.probabilities(network, data)
    return {
        "Augmentation": diagnostics.plot_augmentations(data.train_images[:10], augmentations, name),
        "receptive_field": diagnostics.plot_receptive_field(images[0], receptive_field(network), name),
        "metrics": curves.plot_metrics(run.history, name, run.settings.model),
        "confusion": diagnostics.plot_confusion(labels, probabilities, classes, name),
        "results": diagnostics.plot_misclassified(images, labels, probabilities, classes, name),
        "gradcam": diagnostics.plot_grad_cam(
            *interpret.explained(network, data, probabilities), classes, name
        ),
        "kernels": diagnostics.plot_kernels(
            *interpret.first_layer(network, images[0], data.mean, data.std), name
        ),
        "calibration": diagnostics.plot_calibration(interpret.calibration(labels, probabilities), name),
    }


def refresh_readme(folder: Path) -> int:
    """Rewrites README.md; returns 0.

    Raises UserError, and changes nothing, if a log and its history disagree.
    """
    if lines := _disagreements():
        raise UserError(f"{lines[0]}: bring back the files as the run wrote them")
    old = README.read_text(encoding="utf-8")
    new = fill(old, readme_parts(folder))
    files.replace(README, new.encode())
    print("README.md rewritten" if new != old else "README.md was up to date")
    return 0


def check_readme(folder: Path) -> int:
    """Says what `refresh_readme` would change, and where logs and histories disagree; 0 if nothing."""
    lines = _disagreements()
    for line in lines:
        print(line)
    text = README.read_text(encoding="utf-8")
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
