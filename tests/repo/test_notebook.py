"""The notebook as a student meets it: alone in an empty folder, with nothing but an address to clone from."""

import base64
import json
import os
import re
import shutil
import subprocess

import nbformat
import pytest
from conftest import REPO
from filelock import FileLock
from nbclient import NotebookClient

from s9 import records
from tools import stamp

NOTEBOOK = REPO / "S9.ipynb"
SHOWN = REPO / "results" / "notebook"
"""The run that the committed notebook shows."""
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
"""As the notebook shows them, from top to bottom."""


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(notebook):
    found = outputs(notebook)
    streams = [output.text for output in found if output.output_type == "stream"]
    return "".join(streams + [output.data.get("text/plain", "") for output in found if "data" in output])


def pictures(notebook):
    return [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]


def make_origin(origin):
    """A repository of these sources, to clone from."""
    origin.mkdir()
    for path in [*REPO.glob("*.py"), REPO / "requirements.txt", NOTEBOOK]:
        shutil.copy(path, origin)
    shutil.copytree(REPO / "results", origin / "results")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "test"]):
        subprocess.run([*git, *arguments], cwd=origin, check=True)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """S9.ipynb run on the digits for two epochs, from an empty folder, against a clone of these sources."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # The tests may be spread over processes: one runs it for all.
        shared = shared.parent
    folder, done = shared / "notebook", shared / "notebook" / "done.ipynb"
    with FileLock(shared / "notebook.lock"):
        if not done.exists():
            folder.mkdir()
            nbformat.write(execute(folder), done)
    return nbformat.read(done, as_version=4), folder / "empty" / "S9"


def execute(folder):
    (folder / "empty").mkdir()
    make_origin(folder / "origin")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {"S9_REPO_URL": str(folder / "origin"), "DATASET": "digits", "EPOCHS": "2"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA_DIR", "RUN_DIR", "CIFAR10_DIR"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        where = {"metadata": {"path": str(folder / "empty")}}
        return NotebookClient(notebook, timeout=280, resources=where).execute()


def test_it_runs_alone_from_top_to_bottom(executed):
    notebook, clone = executed
    folder = clone / "runs" / "best-digits-1"
    assert {path.name for path in folder.iterdir()} == {
        "settings.json",
        "history.csv",
        "log.txt",
        "weights.safetensors",
        "checkpoint.pt",
        *(f"{name}.png" for name in PICTURES),
        "checkpoint-previous.pt",
        "QnA.md",
    }
    run = records.read(folder)
    assert run.settings.dataset == "digits"
    assert run.log.strip().splitlines()[-1] in text_of(notebook)


def test_it_shows_its_pictures_and_saves_the_same(executed):
    notebook, clone = executed
    for picture, name in zip(pictures(notebook), PICTURES, strict=True):
        saved = (clone / "runs" / "best-digits-1" / f"{name}.png").read_bytes()
        assert base64.b64decode(picture) == saved, name


def drew_bars(notebook):
    """Whether a widget was made that is a bar; a notebook that was just run knows."""
    states = notebook.metadata.get("widgets", {}).values()
    return any(
        model["model_name"] == "FloatProgressModel" for some in states for model in some["state"].values()
    )


def holds_widgets(notebook):
    return [
        output for output in outputs(notebook) if any("widget" in kind for kind in output.get("data", {}))
    ]


def test_its_bars_were_widgets_and_none_is_left_behind(executed):
    """What is saved of a widget is dead, and shown as an error message."""
    notebook, _ = executed
    assert drew_bars(notebook)
    assert not holds_widgets(notebook)


def test_the_log_is_one_piece_of_text(executed):
    """And nothing else is left to see of the training's own display."""
    notebook, _ = executed
    (cell,) = [cell for cell in notebook.cells if cell.id == "train"]
    curves, bars, *streams = cell.outputs
    assert curves.data == bars.data == {"text/plain": ""}
    log = "".join(stream.text for stream in streams)
    kinds = [line.split(" ")[0].rstrip(":") for line in log.splitlines()]
    assert kinds == ["Epoch", "on", "Train", "Test", "", "Epoch", "Train", "Test", ""]


def test_it_says_loudly_that_digits_are_not_cifar10(executed):
    notebook, _ = executed
    assert "NOT CIFAR-10" in text_of(notebook)


def test_it_runs_without_a_warning(executed):
    notebook, _ = executed
    assert "Warning" not in text_of(notebook)
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]


def test_an_address_that_was_not_filled_in_says_what_to_do(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id == "setup"]
    setup = notebook.cells[0]
    setup.source = re.sub(stamp.CLONE, r"\1YOUR_NAME/S9\3", setup.source)  # It may have been filled in here.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("S9_REPO_URL", raising=False)
        client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, allow_errors=True)
        client.execute()
    (error,) = [output for output in outputs(notebook) if output.output_type == "error"]
    assert error.ename == "SystemExit"
    assert "put your fork's address into REPO_URL" in error.evalue
    assert list(tmp_path.iterdir()) == []


def test_the_committed_notebook_shows_a_committed_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run = records.read(SHOWN)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert len(pictures(notebook)) == len(PICTURES)
    assert not holds_widgets(notebook)
    shown = [line for line in text_of(notebook).splitlines() if line.startswith("Test set: ")]
    logged = [line for line in run.log.splitlines() if line.startswith("Test set: ")]
    assert shown[: len(logged)] == logged
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not run from top to bottom"


def test_the_committed_notebook_holds_no_notes_of_its_runner():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert "papermill" not in content["metadata"]
    assert [cell["metadata"] for cell in content["cells"] if cell["metadata"]] == [{"scrolled": True}]


def test_the_committed_notebook_is_small():
    assert NOTEBOOK.stat().st_size < 3_000_000


def test_the_committed_notebooks_pictures_are_kept_beside_its_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for picture, name in zip(pictures(notebook), PICTURES, strict=True):
        assert base64.b64decode(picture) == (SHOWN / f"{name}.png").read_bytes(), name


def test_the_committed_notebook_names_no_folder_of_the_machine_it_ran_on():
    for word in ("/home/", "/Users/", "/root/", "/tmp/"):
        assert word not in NOTEBOOK.read_text(encoding="utf-8"), word
