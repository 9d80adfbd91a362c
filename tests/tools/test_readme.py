"""The commands and programs on the pages: each is accepted by its program; short ones are run.

Commands are parsed by their own parsers, trainings up to their settings; what they do is tested elsewhere.
Recipes of CONTRIBUTING.md: test_contributing.py.
"""

import argparse
import importlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from pages import PAGES, blocks, commands, read, required, spans, words_of
from PIL import Image

import predict
import train
from s9 import records
from s9.data.cifar10 import CLASSES

RECIPES = set("".join(blocks(read(REPO / "CONTRIBUTING.md"), "bash")).splitlines())
COMMANDS = {command for page in PAGES for command in commands(read(page))} - RECIPES
COMMANDS = {command for command in COMMANDS if "gated" not in command}  # Only its commit has that network.


class Parsed(Exception):
    """Raised in the place of what a command does, with its options."""


@pytest.fixture
def check(monkeypatch):
    """Fails unless the command's program accepts it."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, arguments=None):
        raise Parsed(parse_args(parser, arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)

    def options_of(name, arguments):
        with pytest.raises(Parsed) as caught:
            importlib.import_module(name).main(arguments)
        options = caught.value.args[0]
        for path in filter(lambda value: isinstance(value, Path), vars(options).values()):
            assert path.parts[0] != "results" or (REPO / path.parent).exists(), path
        if name == "train" and options.evaluate:
            records.read(REPO / options.evaluate)
        elif name == "train":
            train.chosen_settings(options)

    def launched(parser, arguments):
        options = parse_args(parser, arguments)
        assert options.training_script == "train.py"
        options_of("train", options.training_script_args)

    def check_command(command):
        _, (program, *arguments) = words_of(command)
        if program == "python" and arguments[0] == "-m":
            assert (REPO / f"{arguments[1].replace('.', '/')}.py").exists(), command
            options_of(arguments[1], arguments[2:])
        elif program == "python":
            assert (REPO / arguments[0]).exists(), command
            options_of(arguments[0].removesuffix(".py"), arguments[1:])
        elif program == "make":
            subprocess.run(["make", "--dry-run", *arguments], cwd=REPO, check=True, capture_output=True)
        elif program == "accelerate":
            from accelerate.commands.launch import launch_command_parser

            launched(launch_command_parser(), arguments[1:])
        elif program == "torchrun":
            from torch.distributed.run import get_args_parser

            launched(get_args_parser(), arguments)
        elif program == "pip":
            needed = {word for word in arguments[1:] if not word.startswith("-")}
            assert needed <= {"requirements.txt", *required("requirements.txt", "requirements-dev.txt")}
        else:
            assert command in (
                "git clone https://github.com/YOUR_NAME/S9.git",
                "cd S9",
                "source .venv/bin/activate",
            ), f"no test knows {command!r}: add it to tests/tools/test_readme.py"

    return check_command


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_of_the_pages_is_accepted(command, check):
    check(command)


def test_no_command_is_overlooked():
    assert {"make test", "python assignment.py audit", "python predict.py photo.jpg more/"} < COMMANDS


def test_the_programs_and_the_prediction_of_the_pages_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "more").mkdir()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    for name in ("photo.jpg", "more/a.png", "more/b.webp"):
        photo.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    predict.main(["photo.jpg", "more/"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["photo.jpg", "more/a.png", "more/b.webp"]
    code, *_ = blocks(read(REPO / "docs" / "usage.md"), "python")
    # The repository is here, under nobody's name.
    code, count = re.subn(
        r'hub\.load\("[\w.-]+/[\w.-]+", (.*)\)', rf'hub.load("{REPO}", \1, source="local")', code
    )
    assert count == 3
    exec(code, {})
    assert capsys.readouterr().out.strip() in CLASSES


def test_the_variables_that_make_takes_are_passed_on():
    exported = re.search(r"^export (.*)$", read(REPO / "Makefile"), re.MULTILINE)[1].split()
    named = {
        span.split("=")[0] for span in spans(read(REPO / "README.md")) if re.fullmatch(r"[A-Z_]+=\S+", span)
    }
    assert {"EPOCHS", "DATASET", "DATA_DIR"} <= named <= {*exported}
