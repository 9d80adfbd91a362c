"""A fork's own address: where it goes, and what is refused."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPO

from tools import answers, stamp

FILES = stamp.PLACES


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A repository of the files that are stamped, which someone else stamped before."""
    root = tmp_path / "fork"
    (root / "docs").mkdir(parents=True)
    for name in FILES:
        shutil.copy(REPO / name, root / name)
    stamp.stamp(root, "someone/else")
    git(root, "init", "--quiet")
    monkeypatch.setattr(stamp, "REPO", root)
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
    "url",
    [
        *("https://github.com/alice/S9", "https://alice:secret@github.com/alice/S9.git/"),
        *("git@github.com:alice/S9.git", "ssh://git@github.com:22/alice/S9.git"),
    ],
)
def test_an_origin_may_be_in_any_of_gits_forms(url, fork):
    git(fork, "remote", "add", "origin", url)
    assert answers.readme_link(fork) == "https://github.com/alice/S9/blob/HEAD/README.md"


@pytest.mark.parametrize(
    "url",
    [
        *(
            None,
            "../S9",
            "https://bob:secret@gitlab.com/bob/S9.git",
            "https://github.com.example.com/alice/S9",
        ),
        *("https://github.com/-alice/S9", "https://github.com/a--b/S9", f"https://github.com/{'a' * 40}/S9"),
        *("https://github.com/alice/..", r"https://github.com/alice/\1", "https://github.com/YOUR_NAME/S9"),
    ],
)
def test_an_origin_that_is_not_on_github_is_one_line_and_changes_nothing(url, fork, refused):
    before = texts(fork)
    if url:
        git(fork, "remote", "add", "origin", url)
    line = refused(stamp)
    assert "the git remote origin is missing or not on GitHub: set it, such as to https://git" in line
    assert "secret" not in line
    assert texts(fork) == before
    assert answers.readme_link(fork).startswith("This copy has no web address yet: push it to GitHub")


def test_the_command_takes_the_origins_address_and_needs_nothing_installed(fork):
    git(fork, "remote", "add", "origin", "https://alice:secret@github.com/alice/S9.git")
    for name in ("tools/__init__.py", "tools/stamp.py", "s9/__init__.py", "s9/errors.py"):
        (fork / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, fork / name)
    code = f"import sys; sys.path.append({str(fork)!r}); from tools import stamp; stamp.main([])"
    command = [sys.executable, "-I", "-S", "-c", code]
    printed = [subprocess.check_output(command, encoding="utf-8") for _ in range(2)]
    changed = f"alice/S9: {', '.join(FILES)} changed: commit and push\n"
    assert printed == [changed, "alice/S9 as before\n"]


def test_a_page_in_another_encoding_is_one_line_and_changes_nothing(fork, refused):
    git(fork, "remote", "add", "origin", "https://github.com/alice/S9")
    before = texts(fork)
    (fork / "README.md").write_text(before["README.md"], encoding="utf-16")
    assert "a file to stamp is not UTF-8" in refused(stamp)
    (fork / "README.md").write_text(before["README.md"], encoding="utf-8")
    assert texts(fork) == before
