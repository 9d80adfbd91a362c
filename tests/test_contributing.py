"""The recipes of CONTRIBUTING.md, followed in a copy: its changes made, its commands and its program run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import FENCED, blocks
from PIL import Image

REPO = Path(__file__).parent.parent
PAGE = (REPO / "CONTRIBUTING.md").read_text()

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
    """Makes all changes of the page in the copy; the names of the files."""
    names = []
    for block in blocks(PAGE, "diff"):
        head, *changes = block.split("@@\n")
        names.append(head.removeprefix("+++ ").strip())
        text = (root / names[-1]).read_text()
        for change in changes:
            text = apply(text, change)
        (root / names[-1]).write_text(text)
    return names


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """(the copy, [(command, exit code, output)]) after all recipes."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(REPO / "tests", root / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*REPO.glob("*.py"), *REPO.glob("*.md"), REPO / "pyproject.toml", REPO / "S9.ipynb"]:
        shutil.copy(path, root)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(root / "photo.png")
    follow_changes(root)
    steps = []
    for kind, block in FENCED.findall(PAGE):
        if kind == "python":
            steps.append((kind, block))
        elif kind == "bash":
            commands = [shlex.split(line) for line in block.splitlines()]
            assert all(words[0] == "python" for words in commands)
            steps += [(kind, words[1:]) for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, json.dumps(steps)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    names = [text if kind == "python" else shlex.join(text) for kind, text in steps]
    return root, {name: tuple(result) for name, result in zip(names, results, strict=True)}


def said(followed, beginning):
    """Exit code and output of the one command, or program, that begins so."""
    ((code, output),) = [result for name, result in followed[1].items() if name.startswith(beginning)]
    return code, output


def test_a_new_network_trains_and_is_as_large_as_it_should_be(followed):
    code, output = said(followed, "train.py --model toy --dataset digits")
    assert code == 0 and "toy on digits for 1 epochs" in output
    parameters, view = map(int, said(followed, "import torch")[1].split())
    assert parameters < 200_000 and view == 51
    code, output = said(followed, "-m pytest -q tests/test_model.py -k toy")
    assert code == 0 and "1 passed" in output


def test_its_audit_ends_with_1_for_the_accuracy_alone(followed):
    code, output = said(followed, "assignment.py audit")
    assert code == 1
    assert [line[6:24] for line in output.splitlines() if line.startswith("FAIL")] == ["test accuracy >= 8"]
    assert output.endswith("14 of 15 requirements met\n")


def test_a_new_augmentation_is_known_to_the_tests(followed):
    code, output = said(followed, "-m pytest -q tests/test_transforms.py")
    assert code == 0 and "passed" in output and "deselected" in output


def test_a_new_data_set_is_learnt_and_predicted_by_its_own_names(followed):
    code, output = said(followed, "train.py --model toy --dataset inverted")
    assert code == 0 and "toy on inverted for 1 epochs" in output
    code, output = said(followed, "predict.py photo.png")
    assert code == 0 and output.startswith("photo.png: digit ")


def test_all_steps_were_taken_and_the_code_stays_in_style(followed):
    root, results = followed
    assert len(results) == 7
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "."],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_tells_the_truth_about_names():
    """Tests, modules and the other DATASETS that it speaks of."""
    tests = "".join(path.read_text() for path in (REPO / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`((?:tests/)?\w+\.(?:py|md))`", PAGE):
        assert (REPO / name).exists(), name
    tables = [path.name for path in REPO.glob("*.py") if re.search(r"^DATASETS = \{", path.read_text(), re.M)]
    assert len(tables) == 1
