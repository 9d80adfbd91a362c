"""Every command and program on README.md and CONTRIBUTING.md is run, in a copy of the repository.

As it stands where that takes seconds, the digits in the place of CIFAR-10. A training passes through its own
options and settings, and then runs, otherwise as it stands, for one epoch on a few hundred digits. What
bench.py measures is test_bench.py's, a run of several processes test_processes.py's, the weights on the real
test set test_train.py's, and the notebook test_notebook.py's. A command that is not known here fails.

The recipes of CONTRIBUTING.md, with their commands: test_contributing.py.
"""

import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from pages import blocks, commands, is_command, spans, words_of
from PIL import Image
from test_repository import required

import dataset
import train
from s9 import records
from s9.data.cifar10 import CLASSES
from tools import benchmark

README, CONTRIBUTING = (
    (REPO / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")
)
RECIPES = set("".join(blocks(CONTRIBUTING, "bash")).splitlines())
COMMANDS = list(dict.fromkeys([*commands(README), *commands(CONTRIBUTING)]))
TRAINED = set()


class Copy:
    """A copy of the repository to run commands in, with a photo and a folder of more."""

    def __init__(self, root, patch, capsys):
        self.root, self.patch, self.capsys = root, patch, capsys
        for name in ("results", "Images"):
            shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("unfinished"))
        for path in [*REPO.glob("*.py"), *REPO.glob("*.md"), *REPO.glob("*.txt"), REPO / "S9.ipynb"]:
            shutil.copy(path, root)
        shutil.copy(REPO / "Makefile", root)
        (root / "more").mkdir()
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
        for name in ("photo.jpg", "more/a.png", "more/b.webp"):
            photo.save(root / name)
        patch.chdir(root)

    def script(self, name, arguments):
        """Runs a module of the copy as a program, which must end well; its output."""
        self.patch.setattr(sys, "argv", [name, *arguments])
        self.capsys.readouterr()
        try:
            runpy.run_path(str(self.root / name), run_name="__main__")
        except SystemExit as ended:
            assert ended.code in (None, 0), self.capsys.readouterr()
        return self.capsys.readouterr().out

    def program(self, *command):
        """Runs another program, which must end well; its output."""
        done = subprocess.run(command, cwd=self.root, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def digits_for_cifar10(self, count=None):
        """Whatever data are asked for, the digits are read, so many of them to train on."""
        digits = dataset.load("digits")
        images, labels = digits.train_images[:count], digits.train_labels[:count]
        digits = digits._replace(train_images=images, train_labels=labels)
        self.patch.setattr(dataset, "load", lambda name, folder=None: digits)


@pytest.fixture
def copy(tmp_path, monkeypatch, capsys):
    return Copy(tmp_path, monkeypatch, capsys)


def check(command, copy):
    """Runs a command in the copy, as told above."""
    variables, (program, *arguments) = words_of(command)
    for name, value in variables.items():
        copy.patch.setenv(name, value)
    if program == "python" and arguments[0] in SCRIPTS:
        SCRIPTS[arguments[0]](copy, arguments[1:])
    elif program in CHECKS:
        CHECKS[program](copy, arguments)
    else:
        pytest.fail(f"no test knows how to run {command!r}: teach it to tests/test_readme.py")


def check_train(copy, arguments):
    options = train.make_parser().parse_args(arguments)
    if options.evaluate:
        # On the real test set: test_train.py, for the runs that are there.
        assert (REPO / options.evaluate / records.SETTINGS).exists()
        copy.digits_for_cifar10()
        assert copy.script("train.py", arguments).startswith("Test set: Average loss: ")
        return
    assert options.dataset in dataset.DATASETS
    settings = replace(train.chosen_settings(options), dataset="digits", epochs=1)
    how = (settings, options.device, options.precision, options.workers, options.resume, options.data_dir)
    if how in TRAINED:  # By another command, which differs in the data and the epochs alone.
        return
    TRAINED.add(how)
    folder = options.out or Path("run")
    copy.digits_for_cifar10(300)
    small = ["--dataset", "digits", "--epochs", "1", "--workers", "0", "--out", str(folder)]
    copy.script("train.py", [*arguments, *small])
    assert records.read(folder).settings == settings


def check_assignment(copy, arguments):
    copy.digits_for_cifar10()
    said = copy.script("assignment.py", arguments)
    if arguments[0] == "qna":
        assert "## 5. The link to README.md" in said
    else:
        end = {"audit": "requirements met", "figures": ".png", "readme": "up to date"}[arguments[0]]
        assert said.rstrip().endswith(end)


def check_bench(copy, arguments):
    """Its options and its report; what is measured is made up."""
    copy.digits_for_cifar10()
    rows = {
        name: lambda _, name=name: [benchmark.faster(name, "images/s", 1, 2)]
        for name in benchmark.MEASUREMENTS
    }
    copy.patch.setattr(benchmark, "MEASUREMENTS", rows)
    benchmark.main(arguments)
    said = copy.capsys.readouterr().out
    asked = arguments[arguments.index("--only") + 1 :][:1] if "--only" in arguments else rows
    assert all(f"| {name} |" in said for name in asked)
    if "--json" in arguments:
        assert benchmark.format_report(benchmark.read_report(Path(arguments[-1]))) == said.strip()


def check_predict(copy, arguments):
    lines = copy.script("predict.py", arguments).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["photo.jpg", "more/a.png", "more/b.webp"]


def check_export(copy, arguments):
    said = copy.script("export.py", arguments).splitlines()
    assert said[-1] == f"s9.onnx: {(copy.root / 's9.onnx').stat().st_size:,} bytes"


def check_stamp(copy, arguments):
    copy.program("git", "init", "--quiet")
    copy.program("git", "remote", "add", "origin", "https://github.com/OWNER/REPO.git")
    assert copy.script("stamp.py", arguments).startswith("OWNER/REPO: README.md, S9.ipynb, hubconf.py")
    assert 'torch.hub.load("OWNER/REPO", ' in (copy.root / "README.md").read_text(encoding="utf-8")


def check_make(copy, arguments):
    """Its recipes are there; what they run, the other tests do."""
    assert copy.program("make", "--dry-run", *arguments)


def check_accelerate(copy, arguments):
    from accelerate.commands.launch import launch_command_parser

    assert arguments[0] == "launch"
    options = launch_command_parser().parse_args(arguments[1:])
    assert options.training_script == "train.py"
    check_train(copy, options.training_script_args)


def check_torchrun(copy, arguments):
    """One process of them; two that know of each other are in test_processes.py."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(arguments)
    assert options.training_script == "train.py"
    check_train(copy, options.training_script_args)


def check_pip(copy, arguments):
    """Nothing is left to install: all of it is what `make test` installs."""
    if "-r" not in arguments:
        assert set(arguments[1:]) <= required("requirements-dev.txt")
    copy.program(sys.executable, "-m", "pip", *arguments, "--no-index", "--no-deps")


def check_apt_get(copy, arguments):
    """What .ci/run installs."""
    line = re.search(r"apt-get (install .*?) >", (REPO / ".ci" / "run").read_text(encoding="utf-8"))[1]
    assert arguments == [word for word in line.split() if not word.startswith("-")]


def check_sha256sum(copy, arguments):
    if shutil.which("sha256sum") is None:
        pytest.skip("needs the program sha256sum")
    copy.program("sha256sum", "--strict", *arguments)


def check_source(copy, arguments):
    """The environment that make makes is meant."""
    folder = arguments[0].removesuffix("/bin/activate")
    assert f"-m venv {folder}\n" in copy.program("make", "--dry-run", "test")


SCRIPTS = {
    "train.py": check_train,
    "assignment.py": check_assignment,
    "bench.py": check_bench,
    "predict.py": check_predict,
    "export.py": check_export,
    "stamp.py": check_stamp,
}
CHECKS = {
    "make": check_make,
    "accelerate": check_accelerate,
    "torchrun": check_torchrun,
    "pip": check_pip,
    "apt-get": check_apt_get,
    "sha256sum": check_sha256sum,
    "source": check_source,
}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RECIPES])
def test_a_command_of_the_pages_runs(command, copy):
    check(command, copy)


def test_the_readmes_program_runs(copy):
    (code,) = blocks(README, "python")
    # The repository lies here, under no one's name.
    code, count = re.subn(
        r'hub\.load\("[\w.-]+/[\w.-]+", (.*)\)', rf'hub.load("{copy.root}", \1, source="local")', code
    )
    assert count == 3
    exec(code, {})
    assert copy.capsys.readouterr().out.strip() in CLASSES


def test_the_variables_that_make_takes_are_passed_on():
    exported = re.search(r"^export (.*)$", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
        1
    ].split()
    named = {span.split("=")[0] for span in spans(README) if re.fullmatch(r"[A-Z0-9_]+=\S+", span)}
    assert {"EPOCHS", "DATASET", "DATA_DIR"} <= named <= {*exported, "S9_LONG", "OMP_NUM_THREADS"}


def test_no_command_is_overlooked():
    page = "`a` and `python x.py\n--y` but not `python` or `model.py`, `A=1 make b`\n\n"
    page += "```bash\nanything --goes\n```\n\n```\nimage 32 x 32\npip install x\n```\n"
    assert commands(page) == ["anything --goes", "pip install x", "python x.py --y", "A=1 make b"]
    assert not any(map(is_command, ("C1 C2 C3 C4 O", "results/best", "--resume", "receptive_field(network)")))
    assert is_command("cat README.md")
    assert {"make test", "python assignment.py audit", "python predict.py photo.jpg more/"} < set(COMMANDS)


@pytest.mark.parametrize(
    "command", ["python nonesuch.py", "python -m nonesuch", "gcc train.c", "cat README.md"]
)
def test_a_command_that_is_not_known_fails(command, copy):
    with pytest.raises(pytest.fail.Exception, match="no test knows how to run"):
        check(command, copy)


@pytest.mark.parametrize(
    "command", ["python train.py --preset nonesuch", "python assignment.py nothing", "make nothing"]
)
def test_a_command_that_is_wrong_fails(command, copy):
    with pytest.raises((AssertionError, ValueError, SystemExit)):
        check(command, copy)
