"""The recipes of CONTRIBUTING.md, followed in a copy: its changes made, its commands run."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from made_runs import copy_repository
from pages import RUN_ALL, blocks, read
from PIL import Image

PAGE = read(REPO / "CONTRIBUTING.md")


@pytest.fixture
def copy(tmp_path):
    """The code, the tests and a photo."""
    copy_repository(tmp_path, "tests", "pyproject.toml", "S9.ipynb")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path


def apply(text, change):
    """A text with one piece of a diff applied: the lines that stay or go must be there together, once."""
    lines = change.splitlines()
    old, new = ([line[1:] for line in lines if line[:1] in kinds or not line] for kinds in (" -", " +"))
    old, new = ("".join(f"{line}\n" for line in part) for part in (old, new))
    assert text.count(old) == 1, f"not there once:\n{old}"
    return text.replace(old, new)


def test_the_recipes_give_what_the_page_promises(copy):
    for block in blocks(PAGE, "diff"):
        head, *changes = block.split("@@\n")
        path = copy / head.removeprefix("+++ ").strip()
        text = read(path)
        for change in changes:
            text = apply(text, change)
        path.write_text(text, encoding="utf-8")
    commands = [shlex.split(line)[1:] for block in blocks(PAGE, "bash") for line in block.splitlines()]
    follow = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    done = subprocess.run(follow, cwd=copy, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    answers = re.findall(r"(.*?)<exit (.*?)>\n", done.stdout, re.DOTALL)
    results = dict(zip(map(shlex.join, commands), answers, strict=True))

    def output_of(beginning, code=0):
        ((output, given),) = [result for name, result in results.items() if name.startswith(beginning)]
        assert int(given) == code, output
        return output

    assert "toy on digits for 1 epochs" in output_of("train.py --model toy --dataset digits --epochs 1 --out")
    audit = [line for line in output_of("assignment.py audit", 1).splitlines() if line.startswith("FAIL")]
    assert [line.split()[1:3] for line in audit] == [["test", "accuracy"]]
    assert "4 passed" in output_of("-m pytest -q tests/test_model.py -k toy")
    assert "passed" in output_of("-m pytest -q tests/test_transforms.py")
    assert "toy on parity for 1 epochs" in output_of("train.py --model toy --dataset parity")
    assert re.match(r"photo.png: (even|odd) ", output_of("predict.py photo.png"))
    output_of("train.py --model toy --dataset digits --epochs 1 --momentum 0.8")
    assert json.loads(read(copy / "runs/momentum/settings.json"))["settings"]["momentum"] == 0.8
    assert len(results) == 7
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "."]
        done = subprocess.run(command, cwd=copy, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_what_exists():
    code = "".join(
        read(path) for path in [*REPO.glob("*.py"), *(REPO / "s9").rglob("*.py"), REPO / "tests/made_data.py"]
    )
    for name in re.findall(r"`((?:[\w/]+/)?\w+\.(?:py|md))`(?!\]\()", PAGE):
        assert (REPO / name).exists(), name
    outside = re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S)
    for name in re.findall(r"`([A-Z]\w+|[a-z]+_[a-z_]+)`", outside):
        assert re.search(rf"^\s*(def|class) {name}\b|^{name}\b.* =", code, re.M) or name == "CIFAR10_DIR", (
            name
        )
