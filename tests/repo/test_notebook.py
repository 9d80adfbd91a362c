"""The notebook in real kernels: alone in an empty folder, as a student meets it, and cell by cell."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import nbformat
import pytest
from conftest import REPO
from filelock import FileLock
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from small import evidence

from s9 import records
from tools.report import PICTURES

NOTEBOOK = REPO / "S9.ipynb"
VARIABLES = ("S9_REPO_URL", "DATASET", "EPOCHS", "DATA_DIR", "RUN_DIR", "CIFAR10_DIR")
FEW = "\ndata = data._replace(train_images=data[2][:480], train_labels=data[3][:480])"
"""For the data cell."""


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(notebook):
    found = outputs(notebook)
    streams = [output.text for output in found if output.output_type == "stream"]
    return "".join(streams + [output.data.get("text/plain", "") for output in found if "data" in output])


def pictures(notebook):
    return [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]


def holds_widgets(notebook):
    return any("widget" in kind for output in outputs(notebook) for kind in output.get("data", {}))


def assert_shows(notebook, folder):
    """Its pictures are those that the run's folder holds."""
    for picture, name in zip(pictures(notebook), PICTURES, strict=True):
        assert base64.b64decode(picture) == (folder / f"{name}.png").read_bytes(), name


def drew_bars(notebook):
    """Whether a progress bar was made; only a notebook that was just run knows."""
    states = notebook.metadata.get("widgets", {}).values()
    return any(
        model["model_name"] == "FloatProgressModel" for some in states for model in some["state"].values()
    )


def copy_sources(folder):
    """The files that git tracks, as they are now."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=REPO, encoding="utf-8"
    )
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, folder / name)


def make_origin(folder):
    """A repository of these sources, to clone from."""
    copy_sources(folder)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "test"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository of these sources, made once for all processes that share the tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / "origin.lock"):
        if not (shared / "origin" / ".git" / "HEAD").exists():
            make_origin(shared / "origin")
    return shared / "origin"


def test_it_runs_alone_from_top_to_bottom_without_a_warning(tmp_path, monkeypatch, origin):
    """On the digits for an epoch, in an empty folder, against a clone of these sources.

    One test, since where tests run in several processes each of them would run the notebook.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    cells["data"].source += FEW
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"S9_REPO_URL": str(origin), "DATASET": "digits", "EPOCHS": "1"}.items():
        monkeypatch.setenv(name, value)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()

    folder = tmp_path / "S9" / "runs" / "best-digits-1"
    files = "settings.json history.csv log.txt weights.safetensors checkpoint.pt checkpoint-previous.pt"
    expected = {*files.split(), "QnA.md", *(f"{name}.png" for name in PICTURES)}
    assert {path.name for path in folder.iterdir()} == expected
    text = text_of(notebook)
    assert records.read(folder).log.strip().splitlines()[-1] in text
    assert "NOT CIFAR-10" in text
    assert "Warning" not in text
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    (last,) = notebook.cells[-1].outputs
    assert "cannot be handed in: it was trained on digits: set DATASET to cifar10" in str(last.data)
    assert_shows(notebook, folder)

    # Its log is text in one piece, and no widget is left: a saved one would be shown as an error message.
    assert drew_bars(notebook)
    assert not holds_widgets(notebook)
    displays = [output for output in cells["train"].outputs if output.output_type != "stream"]
    assert all(display.data == {"text/plain": ""} for display in displays)
    log = "".join(output.text for output in cells["train"].outputs if output.output_type == "stream")
    kinds = [line.split(" ")[0].rstrip(":") for line in log.splitlines()]
    assert kinds == ["best", "", "Epoch", "on", "Train", "Test", ""]


# Cell by cell


class Session:
    """A kernel in which cells of the notebook are run in any order, on the digits, with a small network."""

    def __init__(self, runs):
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        environment |= {"DATASET": "digits", "EPOCHS": "2", "RUN_DIR": str(runs), "OMP_NUM_THREADS": "1"}
        self.manager, self.client = start_new_kernel(cwd=str(REPO), env=environment)
        cells = nbformat.read(NOTEBOOK, as_version=4).cells
        self.sources = {cell.id: cell.source for cell in cells if cell.cell_type == "code"}

    def run(self, cell, *changes, at=None, then=None):
        """Runs a cell, with (old, new) changes of its text; the text that it shows, its error included.

        then: called once, when the text `at` has been shown.
        """
        source, shown = self.sources[cell], []
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        if cell == "settings":
            source += "\nsettings = replace(settings, batch_size=32)"
        if cell == "data":
            source += FEW

        def show(message):
            nonlocal then
            content = message["content"]
            shown.append(content.get("text") or f"{content.get('ename', '')}: {content.get('evalue', '')}")
            if then and at in "".join(shown):
                act, then = then, None
                act()

        with contextlib.suppress(ConnectionError):
            self.client.execute_interactive(source, output_hook=show, timeout=100)
        return "".join(shown)

    def run_to_training(self, *changes):
        """The cells that training needs, the settings with changes; what the settings show."""
        for cell in ("setup", "imports"):
            self.run(cell)
        shown = self.run("settings", *changes)
        self.run("data")
        return shown

    def kill(self):
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        raise ConnectionError  # There will be no answer to wait for.

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_every_way_through_the_cells_gives_one_undisturbed_run_or_a_refusal(tmp_path):
    """The second run starts in a used kernel, is interrupted, resumed, killed, and resumed in a new one."""
    runs = tmp_path / "runs"
    fast, resume = ('"best"', '"fast"'), ("RESUME = False", "RESUME = True")
    with contextlib.closing(Session(runs)) as session:
        shown = session.run_to_training(fast, resume)
        assert "fast has 494,368 parameters, the assignment allows fewer than 200,000" in shown
        assert f"UserError: {runs} holds no run: train one first" in session.run("train")
        assert f"UserError: {runs} holds no run: train one first" in session.run("run")
        session.run("settings", fast)
        session.run("train")
        shown = session.run("settings", ('"best"', '"dilated"'), resume) + session.run("train")
        assert "dilated can be handed in" in shown
        assert "UserError: cannot resume" in shown
        assert "other settings (model fast there, dilated here" in shown

        session.run("settings", fast)
        for cell in ("run", "data", "imports"):
            session.run(cell)
        shown = session.run("train", at="Epoch 1", then=session.manager.interrupt_kernel)
        assert "Interrupted: stopped in epoch 1 by SIGINT; the run is saved in" in shown
        assert "to continue it, set RESUME = True in the settings cell and run all cells" in shown
        session.run("settings", fast, resume)
        session.run("train", at="Epoch 2", then=session.kill)
    with contextlib.closing(Session(runs)) as session:
        session.run_to_training(fast, resume)
        assert "fast-digits-2: fast on digits, 1 of 2 epochs" in session.run("run")
        session.run("train")
        assert "fast-digits-2: fast on digits, 2 of 2 epochs" in session.run("run")
    assert {path.name for path in runs.iterdir()} == {"fast-digits-1", "fast-digits-2"}
    assert evidence(runs / "fast-digits-2") == evidence(runs / "fast-digits-1")


# Its first cell

FAKE = """
import io, os, urllib.request
os.environ["COLAB_RELEASE_TAG"] = "test"
urllib.request.urlopen = lambda address, timeout: io.BytesIO(ANSWER)
"""


def setup(folder, repo="", answer=None, **environment):
    """Runs the setup cell alone; what the process prints, and its error. answer: Colab's, of its sessions."""
    (cell,) = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.id == "setup"]
    source = cell.source.replace('REPO = ""', f'REPO = "{repo}"')
    # If the notebook was stamped with the address of a fork.
    source = re.sub(r"github\.com/[\w.-]+/S9\.git", "github.com/YOUR_NAME/S9.git", source)
    if answer is not None:
        source = FAKE.replace("ANSWER", repr(answer.encode())) + source
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, encoding="utf-8")
    return done.stdout, done.stderr


def on_github(origin, name):
    """Variables by which git finds `origin` at this name on GitHub."""
    url = f"https://github.com/{name}.git"
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf", "GIT_CONFIG_VALUE_0": url}


OPENED = '[{"path": "fileId=https%3A%2F%2Fgithub.com%2Falice%2Fcnn.hw-9%2Fblob%2Fmain%2FS9.ipynb"}]'


@pytest.mark.parametrize(
    ("repo", "answer", "cloned"),
    [("", OPENED, "alice/cnn.hw-9"), ("bob/S9", OPENED, "bob/S9"), ("bob/S9", None, "bob/S9")],
)
def test_the_setup_clones_where_it_was_opened_from_or_the_marked_line(tmp_path, origin, repo, answer, cloned):
    printed, error = setup(tmp_path, repo, answer, **on_github(origin, cloned))
    assert (printed, error) == (f"cloning https://github.com/{cloned}.git\n", "")
    assert (tmp_path / "S9" / "utils.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["S9"]


@pytest.mark.parametrize("answer", [None, '[{"path": "fileId=1a2b3c"}]'])
def test_an_address_that_is_not_known_must_be_filled_in(tmp_path, answer):
    _, error = setup(tmp_path, answer=answer)
    assert error == 'fill in the marked line of this cell, such as REPO = "alice/S9", and run it again\n'
    assert list(tmp_path.iterdir()) == []


def test_a_failed_clone_and_a_folder_that_is_none_are_one_line(tmp_path):
    _, error = setup(tmp_path, "alice/private", **on_github(tmp_path / "nowhere", "alice/private"))
    assert error.startswith("cannot clone https://github.com/alice/private.git (")
    assert error.endswith("): check REPO in the marked line; the fork must be public\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "S9").mkdir()
    _, error = setup(tmp_path, "alice/S9")
    assert error.startswith("the folder S9 is not a complete clone of this repository: rename it")


# As it is committed


def test_the_committed_notebook_shows_a_committed_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = next(f for f in (REPO / "results" / name for name in ("handin", "notebook")) if f.is_dir())
    run = records.read(shown)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not holds_widgets(notebook)
    lines = [line for line in text_of(notebook).splitlines() if line.startswith("Test set: ")]
    logged = [line for line in run.log.splitlines() if line.startswith("Test set: ")]
    assert lines[: len(logged)] == logged
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not run from top to bottom"
    assert_shows(notebook, shown)


def test_the_committed_notebook_is_small_and_holds_no_traces_of_its_runner():
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < 3_000_000
    for word in ("/home/", "/Users/", "/root/", "/tmp/"):
        assert word not in content, word
    notebook = json.loads(content)
    assert "papermill" not in notebook["metadata"]
    assert [cell["metadata"] for cell in notebook["cells"] if cell["metadata"]] == [{"scrolled": True}]
