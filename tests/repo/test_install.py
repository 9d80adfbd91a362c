"""install.py: what it finds missing, and when it calls pip."""

import re
import subprocess
import sys
import zipfile

from s9 import install

ABSENT = "no-such-package-anywhere"


def write(folder, text):
    path = folder / "requirements.txt"
    path.write_text(text, encoding="utf-8")
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


def test_pip_installs_what_is_missing(tmp_path, monkeypatch, capfd):
    """Really, but into a folder of its own, and from a package that the test has made."""
    there = tmp_path / "there"
    with zipfile.ZipFile(tmp_path / "s9_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("s9_probe.py", "")
        wheel.writestr(
            "s9_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: s9-probe\nVersion: 1.0\n"
        )
        wheel.writestr(
            "s9_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("s9_probe-1.0.dist-info/RECORD", "")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "TARGET": str(there)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.syspath_prepend(there)
    path = write(tmp_path, "numpy>=1\ns9-probe>=1,<2\n")
    missing = install.missing
    monkeypatch.setattr(install, "missing", lambda: missing(path))
    install.install_missing()
    assert (there / "s9_probe.py").exists()
    assert capfd.readouterr().out == "installing s9-probe>=1,<2\n"
    install.install_missing()
    assert capfd.readouterr().out == ""


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
