import re
import shutil
import subprocess

import pytest
from conftest import REPO
from made_runs import DILATED, PARAMETERS, SEPARABLE, make_run

import assignment
import dataset
from model import build
from s9 import records
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import summary
from s9.errors import UserError
from s9.settings import Settings
from tools import answers, report

TO_HAND_IN = [name for name in ("reference", "best", "dilated") if (REPO / "results" / name).is_dir()]


@pytest.fixture
def run(tmp_path):
    """A run of two epochs, on disk."""
    return make_run(tmp_path / "run", accuracies=(86.5, 85.25), seed=7)


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A copy of the README and the evidence, which the commands then work on."""
    copy = tmp_path / "repo"
    for name in ("results", "Images"):
        shutil.copytree(REPO / name, copy / name)
    for name in ("README.md", "S9.ipynb"):
        shutil.copy(REPO / name, copy)
    monkeypatch.setattr(report, "REPO", copy)
    monkeypatch.setattr(report, "README", copy / "README.md")
    return copy


def test_the_five_answers_are_the_live_sources(run):
    text = answers.qna(run)
    parts = text.split("\n## ")
    assert [part.lstrip("# ")[:2] for part in parts] == ["1.", "2.", "3.", "4.", "5."]
    assert (REPO / "model.py").read_text(encoding="utf-8").strip() in parts[0]
    assert summary(build("reference")) in parts[1]
    for name in ("A.HorizontalFlip(", "A.ShiftScaleRotate(", "A.CoarseDropout(", "def train_transform("):
        assert name in parts[2]
    assert run.log.strip() in parts[3]
    assert "README.md" in parts[4] or "no web address yet" in parts[4]


def test_the_answers_say_when_the_log_is_not_of_cifar10(run):
    assert "NOT CIFAR-10" not in answers.qna(run)
    digits = run._replace(settings=Settings(epochs=2, dataset="digits"))
    assert "(of DIGITS, NOT CIFAR-10)" in answers.qna(digits)


def test_the_answers_are_written_beside_the_run(run):
    assert answers.write_qna(run) + "\n" == (run.folder / "QnA.md").read_text(encoding="utf-8")


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
    assert answers.readme_link(tmp_path) == "https://github.com/student/S9/blob/HEAD/README.md"


@pytest.mark.parametrize("remote", [None, "/home/student/S9", "../S9", "file:///home/student/S9"])
def test_a_copy_without_a_web_address_says_so_and_names_no_folder(tmp_path, remote):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert answers.readme_link(tmp_path).startswith("This copy has no web address yet: push it to GitHub")
    assert "student" not in answers.readme_link(tmp_path)


def test_the_table_is_markdown_with_the_seeds_columns():
    lines = summary.receptive_field_table(receptive_field(build("reference"))).splitlines()
    assert lines[0] == "| layer | r_in | n_in | j_in | s | r_out | n_out | j_out |"
    assert lines[2] == "| C1.0.convolution | 1 | 32 | 1 | 1 | 3 | 32 | 1 |"
    assert lines[-1] == "| C4.2.convolution | 43 | 8 | 4 | 1 | 51 | 8 | 4 |"


def markers(name, inside=""):
    return f"<!-- {name}: made by `python assignment.py readme` -->\n{inside}\n<!-- end of {name} -->"


def test_parts_go_between_their_markers_and_nothing_else_changes():
    text = f"# Title\n\n{markers('a', 'old')}\n\nprose\n\n{markers('b')}\n"
    first, second = r"new \1 part", "line 1\nline 2"
    filled = report.fill(text, {"a": first, "b": second})
    assert filled == f"# Title\n\n{markers('a', first)}\n\nprose\n\n{markers('b', second)}\n"
    assert report.fill(filled, {"a": first, "b": second}) == filled


def test_markers_that_no_part_is_for_are_named():
    with pytest.raises(UserError, match="a part 'dilated' that no run is there for: take it out"):
        report.fill(f"{markers('a')}\n{markers('dilated')}", {"a": "part"})


@pytest.mark.parametrize("text", ["", markers("a") + "\n" + markers("a"), markers("a")[:-5]])
def test_missing_and_double_markers_are_named(text):
    with pytest.raises(UserError, match="must hold the markers of 'a' once"):
        report.fill(text, {"a": "part"})


def test_a_changed_readme_is_noticed_and_mended(repo, capsys):
    readme = repo / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(
        re.sub(r"\*\*(\d\d)", lambda match: f"**{int(match[1]) + 1}", text, count=1), encoding="utf-8"
    )
    assert assignment.main(["readme", "--check"]) == 1
    assert "README.md is out of date" in capsys.readouterr().out
    assert assignment.main(["readme"]) == 0
    assert readme.read_text(encoding="utf-8") == text
    assert assignment.main(["readme", "--check"]) == 0
    assert capsys.readouterr().out.endswith("README.md is up to date\n")


def test_the_readme_leads_with_the_run_that_is_named(repo, run, capsys):
    assert assignment.main(["readme", "--run", str(run.folder)]) == 0
    text = (repo / "README.md").read_text(encoding="utf-8")
    assert "**85.25%** of 10,000 images" in text
    assert run.log.strip() in text
    capsys.readouterr()


def seeds_of(folder, model, accuracies):
    """A network's runs of two epochs, one a seed, in the layout of results/."""
    for seed, accuracy in enumerate(accuracies):
        place = folder / f"seed-{seed}" if seed else folder
        make_run(place, accuracies=(60.0, accuracy), model=model, seed=seed)


def with_markers(readme, *names):
    readme.write_text(
        readme.read_text(encoding="utf-8") + "".join(f"\n{markers(name)}\n" for name in names),
        encoding="utf-8",
    )


def test_when_runs_arrive_the_readme_shows_them(repo, capsys):
    for name in ("best", "dilated"):
        shutil.rmtree(repo / "results" / name, ignore_errors=True)
    before = report.readme_parts(report.handed_in())
    assert report.handed_in() == repo / "results" / "reference"
    assert set(before) == {
        "results", "shorter", "networks", "summary", "receptive-field", "log", "validation",
        "benchmark", "accelerate", "fast",
    }  # fmt: skip
    assert "best" not in before["networks"]

    seeds_of(repo / "results" / "best", "best", (93.0, 93.4, 93.2))
    seeds_of(repo / "results" / "dilated", "dilated", (91.0,))
    assert report.handed_in() == repo / "results" / "best"
    parts = report.readme_parts(report.handed_in())
    assert set(parts) == {*before, "reference", "dilated"}
    assert "**93.20 ± 0.20%**" in parts["results"]
    assert parts["summary"] == f"```\n{summary(build('best'))}\n```"
    assert parts["reference"] == before["results"]
    assert "| C1.2.convolution | 5 | 32 | 1 | 1 | 9 | 28 | 1 |" in parts["dilated"]
    assert [line.split("]")[0] for line in parts["networks"].splitlines()[2:]] == [
        "| [reference", "| [best", "| [dilated", "| [fast",
    ]  # fmt: skip


def test_a_run_without_its_section_is_told_and_nothing_is_written(repo, refused):
    for name in ("best", "dilated"):
        shutil.rmtree(repo / "results" / name, ignore_errors=True)
    (repo / "README.md").write_text("", encoding="utf-8")
    with_markers(repo / "README.md", *report.readme_parts(report.handed_in()))
    seeds_of(repo / "results" / "dilated", "dilated", (91.0,))
    files = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    assert "must hold the markers of 'dilated' once, not 0 times" in refused(assignment, "readme")
    assert {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()} == files
    with_markers(repo / "README.md", "dilated")
    assert assignment.main(["readme"]) == 0
    shutil.rmtree(repo / "results" / "dilated")
    assert "a part 'dilated' that no run is there for" in refused(assignment, "readme")


# The evidence


def test_a_history_that_its_log_contradicts_is_not_made_the_new_evidence(repo, refused, capsys):
    path = repo / "results" / "reference" / "history.csv"
    history = records.read_history(path)
    shown = f"{history[24].test_accuracy:.2f}"
    history[24] = history[24]._replace(test_accuracy=99.99)
    path.write_text(records.format_history(history), encoding="utf-8")
    line = f"results/reference, epoch 25: test accuracy {shown} in the log, 99.99 in the history"
    assert line in refused(assignment, "readme")
    assert assignment.main(["readme", "--check"]) == 1
    assert line in capsys.readouterr().out


def test_figures_are_drawn_of_the_run_and_of_all_networks(run, tmp_path, capsys):
    report.draw_figures(run, dataset.load("digits"), tmp_path / "Images")
    names = """Augmentation receptive_field metrics confusion results gradcam kernels calibration accuracy
    scaling""".split()
    assert {path.name for path in (tmp_path / "Images").iterdir()} == {f"{name}.png" for name in names}
    capsys.readouterr()


@pytest.mark.parametrize("settings", [{"dataset": "digits"}, {"validation": True}])
@pytest.mark.parametrize("command", ["readme", "figures"])
def test_the_readme_shows_no_other_data(repo, tmp_path, settings, command, refused):
    folder = make_run(tmp_path / "run", **settings).folder
    assert "is no run on CIFAR-10's test set" in refused(assignment, command, "--run", folder)


# What to hand in


def test_a_network_that_is_too_large_is_not_handed_in(refused):
    line = refused(assignment, "qna", "--run", REPO / "results" / "fast")
    assert "has 494,368 parameters, the assignment allows fewer than 200,000: hand in a run of" in line


@pytest.mark.parametrize(("count", "allowed"), [(199_999, True), (200_000, False)])
def test_the_limit_itself_is_too_many_to_hand_in(count, allowed, run, monkeypatch, refused, capsys):
    monkeypatch.setattr(assignment, "count_parameters", lambda network: count)
    if allowed:
        assert assignment.main(["qna", "--run", str(run.folder)]) == 0
    else:
        assert f"has {count:,} parameters" in refused(assignment, "qna", "--run", run.folder)
    capsys.readouterr()


@pytest.mark.parametrize("model", ["reference", "best", "dilated"])
def test_every_other_network_has_its_answers(model, tmp_path):
    run = make_run(tmp_path, model=model, augmentation=0.3, shift=0.125)
    text = answers.qna(run)
    assert f"model.py; the network is {type(build(model)).__name__}\n" in text
    assert summary(build(model)) in text
    assert "transforms; probability is 0.3, shift 0.125\n" in text


@pytest.mark.parametrize("command", ["qna", "readme", "figures"])
def test_weights_of_another_network_are_one_line(command, repo, tmp_path, refused):
    folder = make_run(tmp_path / "run", build("dilated"), model="best").folder
    line = refused(assignment, command, "--run", folder)
    assert "holds the weights of DilatedNet, not of BestNet" in line
    assert not (folder / "QnA.md").exists()


def test_answers_need_the_weights_of_the_run(run, refused):
    (run.folder / records.WEIGHTS).unlink()
    assert "cannot be read as weights" in refused(assignment, "qna", "--run", run.folder)


@pytest.mark.parametrize("command", ["audit", "qna", "readme"])
def test_a_folder_without_a_run_is_one_line(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        assignment.main([command, "--run", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("assignment.py: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", TO_HAND_IN)
def test_a_committed_run_to_hand_in_passes_its_audit(name, capsys):
    assert assignment.main(["audit", "--run", str(REPO / "results" / name)]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_the_fast_network_does_not_pass(capsys):
    assert assignment.main(["audit", "--run", str(REPO / "results" / "fast")]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert [line[6:].split("  ")[0] for line in failed] == [SEPARABLE, DILATED, PARAMETERS]


def test_the_readme_is_what_the_sources_and_the_records_make(capsys):
    assert assignment.main(["readme", "--check"]) == 0, capsys.readouterr().out
