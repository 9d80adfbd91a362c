"""The recipes of CONTRIBUTING.md, followed in a copy: its changes made, its commands and its program run."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from pages import FENCED, blocks
from PIL import Image

import dataset
from s9.plots import style

PAGE = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")

FOLLOW = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, "")
for kind, text in json.loads(sys.argv[1]):
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output):
        try:
            if kind == "python":
                exec(text, {"__name__": "__main__"})
            elif text[0] == "-m":
                sys.argv = text[1:]
                runpy.run_module(text[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = text
                runpy.run_path(text[0], run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
    print(json.dumps([code, output.getvalue()]))
"""
"""One process for all, so that PyTorch is imported once."""


def apply(text: str, change: str) -> str:
    """A text with one piece of a diff made: the lines that stay or go must be in it, together, once."""
    lines = change.splitlines()
    old, new = ([line[1:] for line in lines if line[:1] in kinds or not line] for kinds in (" -", " +"))
    old, new = ("".join(f"{line}\n" for line in part) for part in (old, new))
    assert text.count(old) == 1, f"not there once:\n{old}"
    return text.replace(old, new)


def follow_changes(root):
    """Makes all changes of the page in the copy."""
    for block in blocks(PAGE, "diff"):
        head, *changes = block.split("@@\n")
        path = root / head.removeprefix("+++ ").strip()
        text = path.read_text(encoding="utf-8")
        for change in changes:
            text = apply(text, change)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """The modules, the tests and a photo."""
    shutil.copytree(REPO / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*REPO.glob("*.py"), *REPO.glob("*.md"), REPO / "pyproject.toml", REPO / "S9.ipynb"]:
        shutil.copy(path, tmp_path)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path


def run_steps(root):
    """Runs the page's commands and its program in their order; exit code and output of each, by its text."""
    steps = []
    for kind, block in FENCED.findall(PAGE):
        if kind == "python":
            steps.append((kind, block))
        elif kind == "bash":
            commands = [shlex.split(line) for line in block.splitlines()]
            assert all(words[0] == "python" for words in commands)
            steps += [(kind, words[1:]) for words in commands]
    command = [sys.executable, "-c", FOLLOW, json.dumps(steps)]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    names = [text if kind == "python" else shlex.join(text) for kind, text in steps]
    return dict(zip(names, results, strict=True))


def test_the_recipes_give_what_the_page_promises(copy):
    """In one test: all steps are run once, in one process."""
    follow_changes(copy)
    results = run_steps(copy)

    def said(beginning):
        ((code, output),) = [result for name, result in results.items() if name.startswith(beginning)]
        return code, output

    # A network that trains, is small enough and sees enough; its audit fails for the accuracy alone.
    code, output = said("train.py --model toy --dataset digits")
    assert code == 0 and "toy on digits for 1 epochs" in output
    parameters, view = map(int, said("import torch")[1].split())
    assert parameters < 200_000 and view == 51
    code, output = said("assignment.py audit")
    assert code == 1 and output.endswith("15 of 16 requirements met\n")
    assert [line for line in output.splitlines() if line.startswith("FAIL  test accuracy >= 85%")]
    code, output = said("-m pytest -q tests/test_model.py -k toy")
    assert code == 0 and "1 passed" in output

    # An augmentation that the tests know.
    code, output = said("-m pytest -q tests/test_transforms.py")
    assert code == 0 and "passed" in output and "deselected" in output

    # A data set that is learnt, and predicted by its own names.
    code, output = said("train.py --model toy --dataset inverted")
    assert code == 0 and "toy on inverted for 1 epochs" in output
    code, output = said("predict.py photo.png")
    assert code == 0 and output.startswith("photo.png: digit ")

    # That was all; and the code is as `make test` wants it.
    assert len(results) == 7
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "."]
        done = subprocess.run(command, cwd=copy, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_tells_the_truth_about_names():
    """Tests, modules and the TITLES that it speaks of."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPO / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`((?:tests/)?\w+\.(?:py|md))`", PAGE):
        assert (REPO / name).exists(), name
    assert "`TITLES` in `style.py`" in PAGE
    assert set(style.TITLES) == set(dataset.DATASETS) - {"auto"}
