import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import assignment
import records
from errors import UserError
from model import build, receptive_field, summary
from records import Epoch, Run
from settings import PRESETS, Settings

REPO = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path):
    """A run of two epochs, on disk."""
    folder = tmp_path / "run"
    folder.mkdir()
    facts = {
        "data": {"fingerprint": "0123", "train": 50_000, "test": 10_000},
        "device": "a CPU",
        "threads": 2,
        "precision": "float32",
        "python": "3.12.0",
        "versions": {"torch": "2.9.0"},
        "commit": "abc",
    }
    history = [Epoch(1, 0.1, 1.5, 45.0, 1.2, 86.5, 60.0), Epoch(2, 0.0, 1.0, 60.0, 0.9, 85.25, 60.0)]
    run = Run(
        folder, Settings(epochs=2, seed=7), facts, history, "Epoch 1\nTrain\nTest\n\nEpoch 2\nTrain\nTest\n\n"
    )
    records.write(run, build("reference"))
    return run


def test_the_five_answers_are_the_live_sources(run):
    answers = assignment.qna(run)
    parts = answers.split("\n## ")
    assert [part.lstrip("# ")[:2] for part in parts] == ["1.", "2.", "3.", "4.", "5."]
    assert (REPO / "model.py").read_text().strip() in parts[0]
    assert summary(build("reference")) in parts[1]
    for name in ("A.HorizontalFlip(", "A.ShiftScaleRotate(", "A.CoarseDropout(", "def train_transform("):
        assert name in parts[2]
    assert run.log.strip() in parts[3]
    assert "README.md" in parts[4] or "no web address yet" in parts[4]


def test_the_answers_say_when_the_log_is_not_of_cifar10(run):
    assert "NOT CIFAR-10" not in assignment.qna(run)
    digits = run._replace(settings=Settings(epochs=2, dataset="digits"))
    assert "(of DIGITS, NOT CIFAR-10)" in assignment.qna(digits)


def test_the_answers_are_written_beside_the_run(run):
    assert assignment.write_qna(run.folder) + "\n" == (run.folder / "QnA.md").read_text()


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/student/S9.git",
        "https://github.com/student/S9",
        "https://github.com/student/S9/",
        "https://student:secret-token@github.com/student/S9.git",
        "git@github.com:student/S9.git",
        "ssh://git@github.com/student/S9.git",
        "ssh://git@github.com:22/student/S9.git",
    ],
)
def test_the_link_is_a_web_address_without_secrets(tmp_path, remote):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert assignment.readme_link(tmp_path) == "https://github.com/student/S9/blob/HEAD/README.md"


@pytest.mark.parametrize("remote", [None, "/home/student/S9", "../S9", "file:///home/student/S9"])
def test_a_copy_without_a_web_address_says_so_and_names_no_folder(tmp_path, remote):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert assignment.readme_link(tmp_path).startswith("This copy has no web address yet: push it to GitHub")
    assert "student" not in assignment.readme_link(tmp_path)


def test_the_table_is_markdown_with_the_seeds_columns():
    lines = assignment.receptive_field_table(receptive_field(build("reference"))).splitlines()
    assert lines[0] == "| layer | r_in | n_in | j_in | s | r_out | n_out | j_out |"
    assert lines[2] == "| C1.0.convolution | 1 | 32 | 1 | 1 | 3 | 32 | 1 |"
    assert lines[-1] == "| C4.2.convolution | 43 | 8 | 4 | 1 | 51 | 8 | 4 |"


def test_the_headline_is_the_last_epoch_not_the_best(run):
    table = assignment.results_table(run)
    assert "**85.25%** of 10,000 images" in table
    assert "86.5" not in table
    assert "--epochs 2 --seed 7" in table


def test_the_command_repeats_all_settings_that_are_not_the_default(run):
    settings = Settings(epochs=2, learning_rate=0.1, label_smoothing=0.0)
    assert assignment.command_line(run._replace(settings=settings)) == (
        "python train.py --preset reference --dataset cifar10 --epochs 2 --seed 0 "
        "--learning-rate 0.1 --label-smoothing 0.0"
    )
    settings = replace(PRESETS["fast"], seed=3, validation=True)
    assert assignment.command_line(run._replace(settings=settings)) == (
        f"python train.py --preset fast --dataset cifar10 --epochs {settings.epochs} --seed 3 --validation"
    )
    alone = run._replace(facts=run.facts | {"threads": 1})
    assert assignment.command_line(alone) == f"OMP_NUM_THREADS=1 {assignment.command_line(run)}"


def markers(name, inside=""):
    return f"<!-- {name}: made by `python assignment.py readme` -->\n{inside}\n<!-- end of {name} -->"


def test_parts_go_between_their_markers_and_nothing_else_changes():
    text = f"# Title\n\n{markers('a', 'old')}\n\nprose\n\n{markers('b')}\n"
    first, second = r"new \1 part", "line 1\nline 2"
    filled = assignment.fill(text, {"a": first, "b": second})
    assert filled == f"# Title\n\n{markers('a', first)}\n\nprose\n\n{markers('b', second)}\n"
    assert assignment.fill(filled, {"a": r"new \1 part"}) == filled


@pytest.mark.parametrize("text", ["", markers("b"), markers("a") + "\n" + markers("a"), markers("a")[:-5]])
def test_missing_and_double_markers_are_named(text):
    with pytest.raises(UserError, match="must hold the markers of 'a' once"):
        assignment.fill(text, {"a": "part"})


def test_a_changed_readme_is_noticed_and_mended(run, tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("\n\n".join(markers(name) for name in assignment.readme_parts(run)) + "\n")
    monkeypatch.setattr(assignment, "README", readme)
    assert assignment.main(["readme", "--check", "--run", str(run.folder)]) == 1
    assert assignment.main(["readme", "--run", str(run.folder)]) == 0
    assert assignment.main(["readme", "--check", "--run", str(run.folder)]) == 0
    readme.write_text(readme.read_text().replace("85.25%", "85.26%"))
    assert assignment.main(["readme", "--check", "--run", str(run.folder)]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    "settings", [Settings(epochs=2, dataset="digits"), Settings(epochs=2, validation=True)]
)
@pytest.mark.parametrize("command", ["readme", "figures"])
def test_the_readme_shows_no_other_data(run, settings, command, capsys):
    records.write(run._replace(settings=settings), build("reference"))
    with pytest.raises(SystemExit) as ended:
        assignment.main([command, "--run", str(run.folder)])
    assert ended.value.code == 2
    assert "is no run on CIFAR-10's test set" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["audit", "qna", "readme"])
def test_a_folder_without_a_run_is_one_line(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        assignment.main([command, "--run", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("assignment.py: error: ")
    assert error.count("\n") == 1


def test_the_committed_state_passes_its_audit(capsys):
    assert assignment.main(["audit"]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_the_readme_is_what_the_sources_and_the_records_make(capsys):
    assert assignment.main(["readme", "--check"]) == 0, capsys.readouterr().out
