"""A fork's own address: where it goes, and what is refused."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPO

from tools import answers, stamp

FILES = stamp.PLACES


@pytest.fixture
def fork(tmp_path):
    """A copy of the files that are stamped, which someone else stamped before."""
    root = tmp_path / "fork"
    (root / "docs").mkdir(parents=True)
    for name in FILES:
        shutil.copy(REPO / name, root / name)
    stamp.stamp(root, "someone/else")
    return root


def texts(root):
    return {name: (root / name).read_text(encoding="utf-8") for name in FILES}


def git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_the_address_goes_everywhere_and_can_be_replaced(fork):
    before = texts(fork)
    assert stamp.stamp(fork, "alice/cnn.hw-9") == list(FILES)
    after = texts(fork)
    for name in FILES:
        assert "someone/else" in before[name] and "YOUR_NAME/" not in before[name]
        assert after[name] == before[name].replace("someone/else", "alice/cnn.hw-9")
    assert stamp.stamp(fork, "alice/cnn.hw-9") == []
    assert stamp.stamp(fork, "someone/else") == list(FILES)
    assert texts(fork) == before


@pytest.mark.parametrize(
    "text",
    [
        *("alice/S9", "https://github.com/alice/S9", "https://alice:secret@github.com/alice/S9.git/"),
        *("git@github.com:alice/S9.git", "ssh://git@github.com:22/alice/S9.git"),
    ],
)
def test_addresses_may_be_given_as_git_and_browsers_have_them(text):
    assert stamp.parse(text) == "alice/S9"


@pytest.mark.parametrize(
    "text",
    [
        *("", "alice", "alice/", "/S9", "alice/..", "alice/S9/blob", "alice/S 9", "-alice/S9", "a--b/S9"),
        *(f"{'a' * 40}/S9", f"alice/{'a' * 101}", 'alice/S9"', r"alice/\1", "YOUR_NAME/S9", "älice/S9"),
        *("https://gitlab.com/alice/S9", "https://github.com.example.com/alice/S9"),
    ],
)
def test_a_bad_address_is_one_line_and_changes_nothing(text, fork, monkeypatch, refused):
    monkeypatch.setattr(stamp, "REPO", fork)
    before = texts(fork)
    assert "is not an address on GitHub: give OWNER/REPO, such as alice/S9" in refused(stamp, "--", text)
    assert texts(fork) == before


@pytest.mark.parametrize("remote", [None, "../S9", "https://bob:secret@gitlab.com/bob/S9.git"])
def test_without_an_origin_on_github_the_address_must_be_given(remote, fork, monkeypatch, refused):
    monkeypatch.setattr(stamp, "REPO", fork)
    git(fork, "init", "--quiet")
    if remote:
        git(fork, "remote", "add", "origin", remote)
    line = refused(stamp)
    assert "the git remote origin is missing or not on GitHub: give OWNER/REPO" in line
    assert "secret" not in line
    assert answers.readme_link(fork).startswith("This copy has no web address yet: push it to GitHub")


def test_the_command_takes_the_origins_address_and_needs_nothing_installed(fork):
    git(fork, "init", "--quiet")
    git(fork, "remote", "add", "origin", "https://alice:secret@github.com/alice/S9.git")
    for name in ("tools/__init__.py", "tools/stamp.py", "s9/__init__.py", "s9/errors.py"):
        (fork / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, fork / name)
    code = f"import sys; sys.path.append({str(fork)!r}); from tools import stamp; stamp.main([])"
    command = [sys.executable, "-I", "-S", "-c", code]
    printed = [subprocess.check_output(command, encoding="utf-8") for _ in range(2)]
    changed = f"alice/S9: {', '.join(FILES)} changed: commit and push\n"
    assert printed == [changed, "alice/S9 as before\n"]


def test_the_answers_link_to_the_origin(fork):
    git(fork, "init", "--quiet")
    git(fork, "remote", "add", "origin", "https://bob:secret@github.com/bob/nine.git")
    assert answers.readme_link(fork) == "https://github.com/bob/nine/blob/HEAD/README.md"
