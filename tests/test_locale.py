"""The commands on a machine whose locale is not UTF-8."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from made_runs import FACTS, make_run
from pages import RUN_ALL
from PIL import Image

from model import build
from s9.data.sources import load

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = {
    "predict": (["predict.py", "{folder}"], "0", ".png: "),
    "qna": (["assignment.py", "qna"], "0", "100%|\\u2588"),
    "audit": (["assignment.py", "audit"], "0", " requirements met"),
    "export": (["-m", "tools.export_onnx", "--run", "{run}", "--out", "{folder}/s9.onnx"], "0", "s9.onnx: "),
    "evaluate": (["train.py", "--evaluate", "{run}"], "0", "Test set: Average loss"),
    "report": (["assignment.py", "readme", "--check"], None, ""),
}


@pytest.mark.parametrize(("encoding", "names"), [("ascii", list(COMMANDS)), ("cp1252", ["predict", "qna"])])
def test_the_commands_need_no_utf8(tmp_path, encoding, names):
    """Text files are UTF-8 all the same; what the console cannot show is escaped."""
    folder, run = tmp_path / "pictures", tmp_path / "run"
    folder.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "\u732b.png")
    facts = FACTS | {"data": load("digits").facts()}  # They need no download.
    make_run(run, build("fast"), facts=facts, model="fast", dataset="digits")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"} | ASCII
    if encoding != "ascii":
        environment["PYTHONIOENCODING"] = encoding
    commands = [[word.format(folder=folder, run=run) for word in COMMANDS[name][0]] for name in names]
    command = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    output = subprocess.run(command, cwd=REPO, env=environment, check=False, **pipes).stdout.decode(encoding)
    assert "Traceback" not in output
    answers = re.findall(r"(.*?)<exit (.*?)>\n", output, re.DOTALL)
    for name, (answer, code) in zip(names, answers, strict=True):
        _, expected, words = COMMANDS[name]
        assert expected in (None, code) and words in answer, (name, code, answer)
