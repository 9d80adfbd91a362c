"""A fork's own address: where it goes, what is refused, and that nothing is ever half changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import REPO

from s9.errors import UserError
from tools import answers, evidence, stamp


@pytest.fixture
def fork(tmp_path):
    """A copy of what is stamped, and of what the notebook clones, which someone else stamped before."""
    root = tmp_path / "fork"
    for name in ("results", "Images"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("unfinished"))
    for path in [
        *REPO.glob("*.py"),
        *(REPO / name for name in ("README.md", "S9.ipynb", "requirements.txt")),
    ]:
        shutil.copy(path, root)
    stamp.stamp(root, "someone/else")
    return root


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def git(folder, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_address_goes_everywhere_and_the_checksums_agree(fork):
    texts = {name: (fork / name).read_text(encoding="utf-8") for name in stamp.PLACES}
    assert stamp.stamp(fork, "alice/cnn.hw-9") == ["README.md", "S9.ipynb", "hubconf.py", stamp.SUMS]
    for name, text in texts.items():
        assert "someone/else" in text and "YOUR_NAME/" not in text
        assert (fork / name).read_text(encoding="utf-8") == text.replace("someone/else", "alice/cnn.hw-9")
    assert stamp.stamped(fork) == "alice/cnn.hw-9"
    assert evidence.changed_files(fork) == []


def test_another_address_takes_its_place_and_the_same_changes_nothing(fork):
    stamp.stamp(fork, "alice/S9")
    once = files(fork)
    assert stamp.stamp(fork, "alice/S9") == []
    assert files(fork) == once
    stamp.stamp(fork, "bob/nine")
    assert stamp.stamped(fork) == "bob/nine"
    stamp.stamp(fork, "alice/S9")
    assert files(fork) == once


def test_the_stamped_notebook_clones_the_fork(fork, tmp_path):
    """Its first cell, alone in an empty folder; git takes the fork beside it for the one on GitHub."""
    stamp.stamp(fork, "alice/S9")
    git(fork, "init", "--quiet")
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "--message", "stamped")
    (tmp_path / "empty").mkdir()
    (setup,) = [cell for cell in nbformat.read(fork / "S9.ipynb", 4).cells if cell.id == "setup"]
    aliases = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{fork}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/alice/S9.git",
    }
    environment = {name: value for name, value in os.environ.items() if name != "S9_REPO_URL"} | aliases
    command = [sys.executable, "-c", setup.source]
    done = subprocess.run(
        command, cwd=tmp_path / "empty", env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "empty" / "S9")[Path("S9.ipynb")] == (fork / "S9.ipynb").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "alice/S9",
        "https://github.com/alice/S9",
        "https://github.com/alice/S9.git",
        "https://alice:secret@github.com/alice/S9.git/",
        "git@github.com:alice/S9.git",
        "ssh://git@github.com:22/alice/S9.git",
    ],
)
def test_addresses_may_be_given_as_git_and_browsers_have_them(text):
    assert stamp.parse(text) == "alice/S9"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "alice/",
        "/S9",
        "alice/..",
        "alice/S9/blob",
        "alice/S 9",
        "al ice/S9",
        "-alice/S9",
        "alice-/S9",
        "a--b/S9",
        f"{'a' * 40}/S9",
        f"alice/{'a' * 101}",
        "älice/S9",
        'alice/S9"',
        r"alice/\1",
        "YOUR_NAME/S9",
        "https://gitlab.com/alice/S9",
        "https://github.com.example.com/alice/S9",
    ],
)
def test_a_bad_address_is_one_line_and_changes_nothing(text, fork, monkeypatch, refused):
    monkeypatch.setattr(stamp, "REPO", fork)
    before = files(fork)
    assert "is no address on GitHub: give OWNER/REPO, such as alice/S9" in refused(stamp, "--", text)
    assert files(fork) == before


@pytest.mark.parametrize("remote", [None, "../S9", "https://bob:secret@gitlab.com/bob/S9.git"])
def test_without_an_origin_on_github_the_address_must_be_given(remote, fork, monkeypatch, refused):
    monkeypatch.setattr(stamp, "REPO", fork)
    git(fork, "init", "--quiet")
    if remote:
        git(fork, "remote", "add", "origin", remote)
    line = refused(stamp)
    assert "the git remote origin is missing or not on GitHub: give OWNER/REPO" in line
    assert "secret" not in line


def test_the_command_takes_the_origins_address_and_needs_nothing_installed(fork):
    git(fork, "init", "--quiet")
    git(fork, "remote", "add", "origin", "https://alice:secret@github.com/alice/S9.git")
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({str(fork)!r}); import stamp; ",
    ]
    command[-1] += "stamp.main([])"
    said = [
        subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout for _ in range(2)
    ]
    changed = "README.md, S9.ipynb, hubconf.py, results/SHA256SUMS"
    assert said == [f"alice/S9: {changed} changed: commit and push\n", "alice/S9 as before\n"]
    assert stamp.stamped(fork) == "alice/S9"


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(("step", "number"), [("write_bytes", 4), *(("replace", n) for n in range(1, 5))])
def test_a_fault_on_the_way_leaves_all_as_it_was(fault, step, number, fork, monkeypatch):
    before, calls, real = files(fork), [], getattr(Path, step)

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise fault
        return real(*arguments)

    monkeypatch.setattr(Path, step, fails_once)
    expected = UserError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        stamp.stamp(fork, "alice/S9")
    assert len(calls) >= number
    assert files(fork) == before
    if expected is UserError:
        assert str(caught.value).endswith("(No space left on device): nothing is changed")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hubconf.py", "", "hubconf.py holds no torch.hub.load with an address in it: bring that line back"),
        ("S9.ipynb", "github.com", "S9.ipynb holds no badge with an address"),
        ("README.md", None, "README.md cannot be read"),
        (stamp.SUMS, None, "SHA256SUMS cannot be read"),
    ],
)
def test_a_place_that_is_gone_is_named_and_nothing_changes(name, text, message, fork):
    if text is None:
        (fork / name).unlink()
    else:
        (fork / name).write_text(text, encoding="utf-8")
    before = files(fork)
    with pytest.raises(UserError, match=message):
        stamp.stamp(fork, "alice/S9")
    assert files(fork) == before


def test_a_notebook_that_was_changed_otherwise_is_not_made_the_evidence(fork):
    (fork / "S9.ipynb").write_text((fork / "S9.ipynb").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    stamp.stamp(fork, "alice/S9")
    assert evidence.changed_files(fork) == ["S9.ipynb differs from results/SHA256SUMS"]


def test_the_answers_link_to_the_stamped_address_where_git_knows_none(fork):
    stamp.stamp(fork, "alice/S9")
    git(fork, "init", "--quiet")
    assert answers.readme_link(fork) == "https://github.com/alice/S9/blob/HEAD/README.md"
    git(fork, "remote", "add", "origin", "https://github.com/bob/nine.git")
    assert answers.readme_link(fork) == "https://github.com/bob/nine/blob/HEAD/README.md"
