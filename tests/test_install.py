"""install.py: what it finds missing, and when it calls pip."""

import re
import subprocess
import sys

import install

ABSENT = "no-such-package-anywhere"


def write(folder, text):
    path = folder / "requirements.txt"
    path.write_text(text)
    return path


def test_finds_what_is_absent_with_the_versions_of_its_line(tmp_path):
    path = write(tmp_path, f"numpy>=1\n{ABSENT}>=1.0,<2.1\nother.{ABSENT}\n")
    assert install.missing(path) == [f"{ABSENT}>=1.0,<2.1", f"other.{ABSENT}"]


def test_ignores_comments_and_blank_lines(tmp_path):
    path = write(tmp_path, f"# {ABSENT}-a\n\n   \n  # {ABSENT}-b\nnumpy  # {ABSENT}-c\n{ABSENT}  # why\n")
    assert install.missing(path) == [ABSENT]


def test_ignores_what_starts_notebooks(tmp_path, monkeypatch):
    def absent(name):
        raise install.PackageNotFoundError(name)

    monkeypatch.setattr(install, "version", absent)
    assert install.missing(write(tmp_path, "jupyter>=1.0\npapermill>=2.6\nnumpy\n")) == ["numpy"]


def test_leaves_what_is_there_in_any_version(tmp_path):
    assert install.missing(write(tmp_path, "numpy>=999\nscikit_learn\nPyTest\n")) == []


def test_reads_this_repos_own_requirements(monkeypatch):
    asked = []
    monkeypatch.setattr(install, "version", asked.append)
    assert install.missing() == []
    assert {"torch", "albumentations", "torchsummary"} <= set(asked)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in asked)


def test_calls_pip_with_all_that_is_missing(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(install, "missing", lambda: ["one>=1,<2", "two"])
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append((command, check)))
    install.install_missing()
    assert calls == [([sys.executable, "-m", "pip", "install", "--quiet", "one>=1,<2", "two"], True)]
    assert capsys.readouterr().out == "installing one>=1,<2, two\n"


def test_calls_no_pip_when_nothing_is_missing(monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("nothing to run")

    monkeypatch.setattr(install, "missing", list)
    monkeypatch.setattr(subprocess, "run", refuse)
    install.install_missing()
    assert capsys.readouterr().out == ""


def test_needs_nothing_but_the_standard_library():
    """-S leaves out what is installed, -I everything but Python's own modules."""
    code = f"import sys; sys.path.append({str(install.Path(install.__file__).parent)!r}); import install"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
