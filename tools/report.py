"""Writes the generated parts of the pages, the README.md of every run folder, and the pictures in Images/.

A generated part stands between `<!-- NAME: made by ... -->` and `<!-- end of NAME -->`. A link to code,
[`name`](path.py#L1), gets the line on which `name` is defined.
"""

import os
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
from tools.answers import fenced

REPO = Path(__file__).parent.parent
COMMAND = "python assignment.py readme"
LAST_EPOCHS = 2
"""Epochs of the log that README.md shows."""
PICTURES = "Augmentation receptive_field metrics confusion results gradcam kernels calibration".split()
"""Of a run, in the notebook's order."""


def headline(runs: list[Run]) -> str:
    """One sentence: accuracy with its spread and sampling error, parameters."""
    images, model = runs[0].facts["data"]["test"], runs[0].settings.model
    error = claims.sampling_error(claims.accuracy(runs)[0], images)
    number = "one seed" if len(runs) == 1 else f"mean and standard deviation of {len(runs)} seeds"
    return (
        f"`{model}` reaches {claims.accuracy_text(runs)} after its last epoch ({number}; the sampling error "
        f"of {images:,} test images is {error:.2f} points) with "
        f"{count_parameters(utils.new_network(model)):,} parameters."
    )


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def run_sections(run: Run) -> str:
    """The sections on summary, receptive field and log that the assignment asks README.md for."""
    network = utils.new_network(run.settings.model)
    rows = receptive_field(network)
    page = f"{Path(os.path.relpath(run.folder, REPO)).as_posix()}/README.md"
    epochs = run.log.strip().split("\n\n")
    return "\n\n".join(
        (
            "## Model summary",
            _fold("Output of torchsummary", fenced(summary(network))),
            "## Receptive field",
            f"The receptive field before the global average is **{rows[-1].r_out}** pixels; "
            f"[all layers]({page}#receptive-field).",
            _fold(
                "Receptive field <code>r</code>, size of the map <code>n</code>, distance of neighbours in "
                "input pixels <code>j</code>, stride <code>s</code>; layers that change none are omitted",
                receptive_field_table([row for row in rows if row[1:4] != row[5:8]]),
            ),
            "## Training log",
            f"[The full log]({page}#training-log) has {len(epochs)} epochs, a test after each. "
            "Losses are plain cross-entropies.",
            _fold(f"The last {LAST_EPOCHS} epochs", fenced("\n\n".join(epochs[-LAST_EPOCHS:]))),
        )
    )


def run_page(run: Run) -> str:
    """The README.md of a run folder."""
    network, settings = utils.network_of(run), run.settings
    held_out = "validation set (the last 5,000 training images)" if settings.validation else "test set"
    pictures = [f"![{path.stem}]({path.name})" for path in sorted(run.folder.glob("*.png"))]
    return "\n\n".join(
        (
            f"# `{settings.model}`, {settings.epochs} epochs, seed {settings.seed}",
            f"Written by `{COMMAND}` from the files in this folder. The accuracy is that of the {held_out}.",
            claims.results_table(run),
            *pictures,
            "## Training log",
            _fold(f"All {len(run.history)} epochs", fenced(run.log)),
            "## Model summary",
            _fold("Output of torchsummary", fenced(summary(network))),
            "## Receptive field",
            _fold("Receptive field, layer by layer", receptive_field_table(receptive_field(network))) + "\n",
        )
    )


def readme_parts(folder: Path) -> dict[str, str]:
    """The generated parts of all pages, by name; `folder`: the run that README.md leads with."""
    results = REPO / "results"
    runs, networks = claims.read_seeds(folder), claims.read_networks(results)
    lengths = [results / name for name in ("short", "notebook", "long") if (results / name).is_dir()]
    return {
        "results": f"{headline(runs)}\n\n{claims.networks_table(networks, short=True)}",
        "run": run_sections(runs[0]),
        "networks": claims.networks_table(networks),
        "lengths": claims.runs_table([run for folder in lengths for run in claims.read_seeds(folder)]),
        "trials": claims.runs_table(claims.read_trials(results / "trials")),
        "public": claims.marks_table(claims.read_marks(results / "public.csv")),
        "benchmark": benchmark.read_report(results / "bench.json"),
    }


def fill(pages: dict[Path, str], parts: dict[str, str]) -> dict[Path, str]:
    """The pages' texts by path, with each part between its markers and with links to the lines of code.

    Raises UserError if a pair of markers is missing or repeated, or has no part, or if a link names nothing.
    """
    pattern = rf"<!-- (\S+): made by `{COMMAND}` -->\n(?:.*?\n)?<!-- end of \1 -->"
    found = [name for text in pages.values() for name in re.findall(pattern, text, re.DOTALL)]
    if sorted(found) != sorted(parts):
        raise UserError(f"the pages must have one pair of markers for each of {sorted(parts)}, got {found}")

    def filled(match: re.Match) -> str:
        return f"<!-- {match[1]}: made by `{COMMAND}` -->\n{parts[match[1]]}\n<!-- end of {match[1]} -->"

    return {
        path: _with_lines(path, re.sub(pattern, filled, text, flags=re.DOTALL))
        for path, text in pages.items()
    }


def _with_lines(page: Path, text: str) -> str:
    def linked(match: re.Match) -> str:
        name, target = match.groups()
        with records.reading(page, f"links to {target}, which cannot be read", "change the link"):
            code = (page.parent / target).read_text(encoding="utf-8")
        definition = re.search(rf"^(def|class) {name}\b|^{name}\b.* = ", code, re.MULTILINE)
        if definition is None:
            raise UserError(f"{page.name}: {target} does not define {name}; change the link")
        line = code.count("\n", 0, definition.start()) + 1
        return f"[`{name}`]({target}#L{line})"

    return re.sub(r"\[`(\w+)`\]\(([\w./]+\.py)#L\d+\)", linked, text)


def current_pages(folder: Path, runs: list[Run], check: bool = False) -> tuple[dict[Path, str], list[str]]:
    """The texts of all pages, by path, and a line for each disagreement of a run's log, history and settings.

    folder: the run that README.md leads with. Raises UserError for a damaged page and, unless `check`, for a
    disagreement.
    """
    named = [run._replace(folder=Path(os.path.relpath(run.folder, REPO))) for run in runs]
    lines = [line for run in named for line in evidence.disagreements(run)]
    if lines and not check:
        raise UserError(f"{lines[0]}: restore the files as the run wrote them")
    texts = {}
    for path in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))):
        with records.reading(path, "cannot be read"):
            texts[path] = path.read_text(encoding="utf-8")
    pages = fill(texts, readme_parts(folder))
    pages |= {run.folder / "README.md": run_page(run) for run in runs if run.folder.parent.name != "trials"}
    return pages, lines


def refresh_readme(folder: Path, check: bool = False) -> int:
    """Rewrites the pages that are out of date and prints their names; returns 0.

    check: rewrites nothing, and returns 1 if a page is out of date or if a run's log, history and settings
    disagree.
    folder: the run that README.md leads with.

    Raises UserError as current_pages(), before anything is written.
    """
    runs = [records.read(run_folder) for run_folder in evidence.run_folders(REPO)]
    pages, lines = current_pages(folder, runs, check)
    stale = []
    for path, text in pages.items():
        with records.reading(path, "cannot be read"):
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                stale.append(path)
    for path in stale:
        lines.append(f"{path.relative_to(REPO)} {f'is out of date: run {COMMAND}' if check else 'rewritten'}")
        if not check:
            files.replace(path, pages[path].encode())
    print("\n".join(lines) or "all pages are up to date")
    return int(check and bool(lines))


def draw_run(run: Run, data: dataset.Data, folder: Path) -> None:
    """Writes the pictures of a run into `folder`."""
    network, settings = utils.trained_network(run, data), run.settings
    augmentations = dataset.augmentations_alone(
        data.mean, settings.seed, settings.augmentation, settings.shift
    )
    images, labels, classes, name = data.test_images, data.test_labels, data.classes, data.name
    probabilities = utils.probabilities(network, data)
    examples = interpret.explained(network, data, probabilities)
    first_layer = interpret.first_layer(network, images[0], data.mean, data.std)
    bins = interpret.calibration(labels, probabilities)
    figures = (
        diagnostics.plot_augmentations(data.train_images[:10], augmentations, name),
        diagnostics.plot_receptive_field(images[0], receptive_field(network), name),
        curves.plot_metrics(run.history, name, settings.model),
        diagnostics.plot_confusion(labels, probabilities, classes, name),
        diagnostics.plot_misclassified(images, labels, probabilities, classes, name),
        diagnostics.plot_grad_cam(*examples, classes, name),
        diagnostics.plot_kernels(*first_layer, name),
        diagnostics.plot_calibration(bins, name),
    )
    for picture, figure in zip(PICTURES, figures, strict=True):
        style.save(figure, folder / f"{picture}.png")


def draw_figures(run: Run, data: dataset.Data, folder: Path) -> None:
    """Writes the pictures of a run, and the one that compares networks, into `folder`."""
    results, ours, public = REPO / "results", [], []
    for name, runs in claims.read_networks(results).items():
        count = count_parameters(utils.new_network(name))
        rules = count < audit.PARAMETER_LIMIT
        ours.append(curves.Point(name, count, *claims.accuracy(runs), runs[0].settings.epochs, rules))
    for mark in claims.read_marks(results / "public.csv"):
        name = mark["name"] + (", best epoch" if mark["protocol"].startswith("best") else "")
        count, epochs = int(mark["parameters"]), int(mark["epochs"]) if mark["epochs"] else None
        rules = all(rule in mark["rules"] for rule in claims.RULES)
        public.append(curves.Point(name, count, float(mark["accuracy"]), None, epochs, rules))
    draw_run(run, data, folder)
    figure = curves.plot_accuracy(ours, public, audit.PARAMETER_LIMIT, audit.ACCURACY_LIMIT)
    style.save(figure, folder / "accuracy.png")
    print(f"{', '.join([*PICTURES, 'accuracy'])} written to {folder}")
