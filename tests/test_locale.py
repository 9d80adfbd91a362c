"""The commands on a machine whose locale is not UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import FACTS, make_run
from PIL import Image

from model import build
from s9.data.sources import load

REPO = Path(__file__).parent.parent
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = {
    "predict": (["predict.py", "{folder}"], 0, ".png: "),
    "audit": (["assignment.py", "audit"], 0, " requirements met"),
    "qna": (["assignment.py", "qna"], 0, "100%|\\u2588"),
    "export": (["-m", "tools.export_onnx", "--run", "{run}", "--out", "{folder}/s9.onnx"], 0, "s9.onnx: "),
    "evaluate": (["train.py", "--evaluate", "{run}"], 0, "Test set: Average loss"),
    "report": (["assignment.py", "readme", "--check"], None, ""),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the digits, which need no download; its log holds the bars that a console shows."""
    folder = tmp_path_factory.mktemp("run")
    facts = FACTS | {"data": load("digits").facts()}
    make_run(folder, build("fast"), facts=facts, model="fast", dataset="digits")
    return folder


@pytest.mark.parametrize(
    ("name", "encoding"), [*((name, "ascii") for name in COMMANDS), ("predict", "cp1252"), ("qna", "cp1252")]
)
def test_a_command_needs_no_utf8(tmp_path, run, name, encoding):
    """Text files are UTF-8 all the same; what the console cannot show is escaped."""
    arguments, code, expected = COMMANDS[name]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "\u732b.png")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"} | ASCII
    if encoding != "ascii":
        environment["PYTHONIOENCODING"] = encoding
    command = [argument.format(folder=tmp_path, run=run) for argument in arguments]
    done = subprocess.run(
        [sys.executable, *command], cwd=REPO, env=environment, capture_output=True, check=False
    )
    output = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in output
    assert done.returncode == code or code is None
    assert expected in output
