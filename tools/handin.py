"""Makes a run the one that is handed in: README.md, Images/ and S9.ipynb then show it.

The run is copied to results/handin, which takes precedence over results/best and results/reference; those
stay, under their names, as the authors' runs.
"""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from IPython.display import Markdown
from torch import nn

import utils
from s9 import colab, files, records
from s9.data.sources import Data, load
from s9.errors import UserError
from s9.records import Run
from tools import answers, claims, evidence, report, stamp

RECORDS = (records.SETTINGS, records.HISTORY, records.LOG, records.WEIGHTS, "QnA.md")
CHANGED = ("README.md", "S9.ipynb", "Images", "docs", "hubconf.py", "results")


class LastRun:
    """The run in `runs` that was saved last, as the notebook shows it. Each access reads its folder.

    Access raises UserError if there is no run with a finished epoch; `network` and `probabilities` also if
    `data` is not its data.
    """

    def __init__(self, runs: str | Path, data: Data) -> None:
        self.runs, self.data = Path(runs), data
        self._computed: tuple = (None, None, None)

    @property
    def run(self) -> Run:
        """Its records."""
        return records.last_run(self.runs)

    @property
    def network(self) -> nn.Module:
        """The network with its weights, on the fastest device."""
        return self._compute()[1]

    @property
    def probabilities(self) -> np.ndarray:
        """Of each class for each test image: see utils.probabilities."""
        return self._compute()[2]

    def _compute(self) -> tuple:
        if self._computed[0] != (run := self.run):
            network = utils.trained_network(run, self.data)
            self._computed = run, network, utils.probabilities(network, self.data)
        return self._computed


def hand_in(folder: Path, data_dir: str | None = None) -> None:
    """Copies the run in `folder` to results/handin, and rewrites the pages and Images/.

    An executed S9.ipynb beside the run's folder, where `make run` leaves it, becomes the repository's.
    Raises UserError, before anything is changed, if the run is unfinished, not on CIFAR-10, or too large, if
    the pages or another run are damaged, or if folders or a checkpoint in results/handin would be lost.
    """
    run = records.read(folder)
    claims.read_seeds(folder)
    target = report.REPO / "results" / "handin"
    replaced = folder.resolve() != target.resolve()
    lost = [path for path in target.glob("*") if path.is_dir() or path.match(records.CHECKPOINTS)]
    if target.is_symlink() or target.is_file():
        lost = [target]
    if replaced and lost:
        raise UserError(f"{lost[0]} would go with the run that is replaced: move it elsewhere first")
    others = [other for other in evidence.run_folders(report.REPO) if other != target]
    report.current_pages(folder, [run, *map(records.read, others)])
    answers.write_qna(run)
    names = [f"{name}.png" for name in report.PICTURES]
    if not all((folder / name).exists() for name in names):
        report.draw_run(run, load(run.settings.dataset, data_dir), folder)
    if replaced:
        # A copy that fails, on a full disk, leaves the last one; in results/ it would be read as a run.
        copy = report.REPO / ".handin-tmp"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in (*RECORDS, *names):
            shutil.copy(folder / name, copy)
        shutil.rmtree(target, ignore_errors=True)
        copy.rename(target)
    for name in names:
        shutil.copy(target / name, report.REPO / "Images")
    executed = folder.parent / "S9.ipynb"
    if executed.exists() and not executed.samefile(report.REPO / "S9.ipynb"):
        shutil.copy(executed, report.REPO)
    report.refresh_readme(target)


def next_steps(run: Run) -> Markdown:
    """For the end of the notebook: in Colab, hands in `run` and downloads it; elsewhere says how to.

    The pages then name the fork's address. Nothing is pushed. A run that cannot be handed in is named with
    the reason.
    """
    reason = answers.too_large(run.settings.model) if run.complete else run.summary()
    if run.settings.dataset != "cifar10":
        reason = f"it was trained on {run.settings.dataset}: set DATASET to cifar10"
    if reason:
        return Markdown(f"This run cannot be handed in: {reason}.")
    if not colab.in_colab():
        return Markdown(
            "Save this notebook. Then make this run the one that README.md shows, and push it:\n\n"
            f"```bash\npython assignment.py handin --run {run.folder}\n{git_lines()}\n```"
        )
    address = stamp.own_address(report.REPO)  # Raises before anything is changed.
    hand_in(run.folder)
    notebook = colab.notebook()
    if notebook:
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        files.replace(report.REPO / "S9.ipynb", text.encode())
    stamp.stamp(report.REPO, address)
    archive = run.folder / "handin.zip"
    # Without Colab's notebook, S9.ipynb is not this run's and would replace the copy that the user saves.
    pack(report.REPO, archive, [name for name in CHANGED if notebook or name != "S9.ipynb"])
    colab.download(archive)
    saved = "" if notebook else " Colab did not give the notebook: also *File, Save a copy in GitHub*."
    upload = f"[github.com/{address}](https://github.com/{address}/upload)"
    return Markdown(
        f"Your run is in `handin.zip`, which the browser downloads now.{saved} Unzip it, drag its contents "
        f"to {upload} and commit; or unzip it into a clone of your fork and push:\n\n"
        f"```bash\n{git_lines()}\n```"
    )


def git_lines() -> str:
    """The commands that push a run that was handed in."""
    return f'git add {" ".join(CHANGED)}\ngit commit -m "My run"\ngit push'


def pack(root: Path, archive: Path, names: Sequence[str] = CHANGED) -> None:
    """Writes those of a git repository's files that are new or differ from its last commit to a zip archive.

    names: files, and folders whose files are meant. Raises UserError if git cannot list them.
    """
    command = ["git", "ls-files", "--modified", "--others", "--exclude-standard", "-z", *names]
    try:
        listed = subprocess.check_output(command, cwd=root, encoding="utf-8")
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"git cannot list the files that changed in {root} ({error})") from error
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in filter(None, listed.split("\0")):
            if (root / name).exists():
                file.write(root / name, name)
