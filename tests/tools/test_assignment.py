"""The answers, the pages and the pictures that assignment.py makes."""

import json
import re
import shutil

import pytest
from conftest import REPO
from made_runs import FACTS, Rule, copy_repository, make_run
from pages import read

import assignment
import dataset
from model import build
from s9 import records
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import receptive_field_table, summary
from s9.errors import UserError
from tools import answers, report

TO_HAND_IN = [name for name in ("reference", "best", "dilated") if (REPO / "results" / name).is_dir()]


@pytest.fixture
def run(tmp_path):
    """A run of two epochs, on disk."""
    return make_run(tmp_path / "run", accuracies=(86.5, 85.25), seed=7)


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A copy of the pages, the evidence and the code they link to, which the commands then work on."""
    copy = copy_repository(tmp_path / "repo", "results", "Images", "docs", "README.md")
    monkeypatch.setattr(report, "REPO", copy)
    return copy


# The answers


@pytest.mark.parametrize("model", ["reference", "best", "dilated"])
def test_the_five_answers_are_the_live_sources(model, tmp_path):
    run = make_run(tmp_path, model=model, augmentation=0.3, shift=0.125)
    text = answers.write_qna(run)
    assert read(tmp_path / "QnA.md") == text + "\n"
    parts = text.split("\n## ")
    assert [part.lstrip("# ")[:2] for part in parts] == ["1.", "2.", "3.", "4.", "5."]
    assert f"model.py; the network is {type(build(model)).__name__}\n" in parts[0]
    assert read(REPO / "model.py").strip() in parts[0]
    assert summary(build(model)) in parts[1]
    for name in ("A.HorizontalFlip(", "A.ShiftScaleRotate(", "A.CoarseDropout(", "def train_transform("):
        assert name in parts[2]
    assert "probability is 0.3, shift 0.125\n" in parts[2]
    assert run.log.strip() in parts[3]
    assert "README.md" in parts[4] or "no web address yet" in parts[4]
    assert "NOT CIFAR-10" not in text
    digits = make_run(tmp_path / "digits", model=model, dataset="digits")
    assert "(of DIGITS, NOT CIFAR-10)" in answers.qna(digits)


@pytest.mark.parametrize("count", [199_999, 200_000])
def test_a_network_with_too_many_parameters_is_not_handed_in(count, run, monkeypatch):
    monkeypatch.setattr(answers, "count_parameters", lambda network: count)
    if count < 200_000:
        assert answers.qna(run)
    else:
        with pytest.raises(UserError, match=f"has {count:,} parameters"):
            answers.qna(run)


# The pages


def markers(name, inside=""):
    return f"<!-- {name}: made by `python assignment.py readme` -->\n{inside}\n<!-- end of {name} -->"


def test_parts_go_between_their_markers_and_links_get_their_lines(repo):
    page, other = repo / "README.md", repo / "docs" / "networks.md"
    pages = {
        page: f"# Title\n\n{markers('a', 'old')}\n\n[`build`](model.py#L1) and [`S9Net`](model.py)\n",
        other: f"[`S9Net`](../model.py#L7)\n{markers('b')}\n",
    }
    first, second = r"new \1 part", "line 1\nline 2"
    filled = report.fill(pages, {"a": first, "b": second})
    lines = read(repo / "model.py").splitlines()
    build_line, net_line = (
        next(number for number, line in enumerate(lines, 1) if line.startswith(beginning))
        for beginning in ("def build(", "class S9Net(")
    )
    assert filled == {
        page: pages[page].replace("old", first).replace("#L1", f"#L{build_line}"),
        other: f"[`S9Net`](../model.py#L{net_line})\n{markers('b', second)}\n",
    }
    assert report.fill(filled, {"a": first, "b": second}) == filled
    with pytest.raises(UserError, match=r"README.md: model.py does not define nonesuch; change the link"):
        report.fill({page: "[`nonesuch`](model.py#L1)"}, {})
    with pytest.raises(
        UserError, match=r"README.md links to gone.py, which cannot be read .*: change the link"
    ):
        report.fill({page: "[`build`](gone.py#L1)"}, {})
    other.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"networks.md cannot be read \(.*0xff"):
        report.current_pages(repo / "results" / "best", [])


@pytest.mark.parametrize("text", ["", markers("a") + markers("a"), markers("a")[:-5], markers("b")])
def test_missing_repeated_and_unknown_markers_are_refused(text):
    with pytest.raises(UserError, match=r"must have one pair of markers for each of \['a'\], got \["):
        report.fill({REPO / "README.md": text}, {"a": "part"})


def test_the_pages_are_what_the_sources_and_the_records_make(capsys):
    assert assignment.main(["readme", "--check"]) == 0, capsys.readouterr().out


def digit(pattern):
    """Raises the last digit of the first match by one, around 10."""

    def change(path):
        text = read(path)
        at = re.search(pattern, text).end() - 1
        path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")

    return change


def one_weight(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def setting(path):
    record = json.loads(read(path))
    record["settings"]["weight_decay"] *= 2
    path.write_text(json.dumps(record), encoding="utf-8")


EVIDENCE = {
    "results/dilated/history.csv": (digit(r"\n48(,[^,]*){4},\d+\.\d+"), "results/dilated, epoch 48: "),
    "results/reference/log.txt": (digit(r"Epoch 7\n.*\n.*loss: \d\.\d+"), "results/reference, epoch 7: "),
    "results/fast/weights.safetensors": (one_weight, "results/fast/README.md is out of date"),
    "results/short/settings.json": (setting, "results/short/README.md is out of date"),
}
"""Files, how they are doctored, and what says so."""
CHANGED_PAGES = {
    "README.md": digit(r"reaches \*\*\d\d\.\d\d"),
    "docs/experiments.md": digit(r"validation accuracy.*\n.*\n.*?\*\*\d\d\.\d\d"),
    "docs/performance.md": digit(r"fast \|.*\*\*\d"),
    "results/notebook/README.md": digit(r"Parameters \| 199,85\d"),
    "results/reference/README.md": lambda path: path.write_bytes(path.read_bytes() + b"\xff"),
}


def test_doctored_copies_are_named_and_pages_mended(repo, capsys):
    """Pictures: test_evidence.py; the accuracy that the weights give: test_audit.py."""
    pages = {path: read(path) for path in repo.rglob("*.md")}
    expected = [line for _, line in EVIDENCE.values()]
    for name, change in (CHANGED_PAGES | {name: change for name, (change, _) in EVIDENCE.items()}).items():
        change(repo / name)
    expected += [f"{name} is out of date: run python assignment.py readme" for name in CHANGED_PAGES]
    assert assignment.main(["readme", "--check"]) == 1
    printed = capsys.readouterr().out
    assert [line for line in expected if line not in printed] == []
    for name in EVIDENCE:
        shutil.copy(REPO / name, repo / name)
    assert assignment.main(["readme"]) == 0
    assert {path: read(path) for path in repo.rglob("*.md")} == pages


def test_a_folder_in_the_place_of_a_runs_page_is_one_line_and_nothing_is_written(repo):
    (repo / "results" / "fast" / "README.md").unlink()
    (repo / "results" / "fast" / "README.md").mkdir()
    page = repo / "results" / "best" / "README.md"
    page.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"results/fast/README\.md cannot be read"):
        report.refresh_readme(repo / "results" / "best")
    assert read(page) == ""


def test_new_runs_lead_and_have_their_pages(repo, run, capsys):
    shutil.rmtree(repo / "results" / "best")
    assert records.leading_run(repo / "results") == repo / "results" / "reference"
    for seed, accuracy in enumerate((93.0, 93.4, 93.2)):
        folder = repo / "results" / "best" / (f"seed-{seed}" if seed else "")
        made = make_run(folder, accuracies=(60.0, accuracy), model="best", seed=seed)
        made_page = [f"**{accuracy:.2f}%**", f"--seed {seed}", made.log.strip(), summary(build("best"))]
    assert records.leading_run(repo / "results") == repo / "results" / "best"
    assert assignment.main(["readme", "--run", str(records.leading_run(repo / "results"))]) == 0
    assert "`best` reaches **93.20 ± 0.20%**" in read(repo / "README.md")
    page = read(made.folder / "README.md")
    assert all(text in page for text in made_page)
    assert receptive_field_table(receptive_field(build("best"))) in page
    assert assignment.main(["readme", "--run", str(run.folder)]) == 0
    text = read(repo / "README.md")
    one_seed = "`reference` reaches **85.25%** after its last epoch (one seed; the sampling error of 10,000"
    assert one_seed in text and run.log.strip() in text and summary(build("reference")) in text


def test_a_history_that_its_log_contradicts_is_not_published(repo, refused):
    path = repo / "results" / "reference" / "history.csv"
    history = records.read_history(path)
    history[24] = history[24]._replace(test_accuracy=99.99)
    path.write_text(records.format_history(history), encoding="utf-8")
    pages = {path: read(path) for path in repo.rglob("*.md")}
    for arguments in (["readme"], ["qna", "--run", path.parent]):
        line = refused(assignment, *arguments)
        assert "results/reference, epoch 25: test accuracy " in line and "99.99" in line
    assert {path: read(path) for path in repo.rglob("*.md")} == pages


# Pictures, and what every command refuses


def test_figures_are_drawn_of_the_run_and_of_all_networks(tmp_path, capsys):
    data = dataset.load("digits")
    run = make_run(tmp_path / "run", facts=FACTS | {"data": data.facts()})
    report.draw_figures(run, data, tmp_path / "Images")
    names = {f"{name}.png" for name in (*report.PICTURES, "accuracy")}
    assert {path.name for path in (tmp_path / "Images").iterdir()} == names
    capsys.readouterr()


@pytest.mark.parametrize("settings", [{"dataset": "digits"}, {"validation": True}])
@pytest.mark.parametrize("command", ["readme", "figures"])
def test_the_pages_lead_with_no_other_data(repo, tmp_path, settings, command, refused):
    folder = make_run(tmp_path / "run", **settings).folder
    assert "CIFAR-10's test set" in refused(assignment, command, "--run", folder)


@pytest.mark.parametrize("command", ["qna", "readme", "figures"])
def test_weights_of_another_network_are_one_line(command, repo, tmp_path, refused):
    folder = make_run(tmp_path / "run", build("dilated"), model="best").folder
    line = refused(assignment, command, "--run", folder)
    assert "holds the weights of DilatedNet, not of BestNet" in line
    assert not (folder / "QnA.md").exists()


# The committed runs


@pytest.mark.parametrize("name", TO_HAND_IN)
def test_a_committed_run_to_hand_in_passes_its_audit(name, capsys):
    assert assignment.main(["audit", "--run", str(REPO / "results" / name)]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_the_fast_network_does_not_pass(capsys):
    assert assignment.main(["audit", "--run", str(REPO / "results" / "fast")]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert [line[6:].split("  ")[0] for line in failed] == [Rule.SEPARABLE, Rule.DILATED, Rule.PARAMETERS]
