"""install.py: what does not meet requirements.txt, and what pip may change."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from s9 import install

ABSENT = "no-such-package-anywhere"


def write(folder, text):
    path = folder / "requirements.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"numpy>=1\n{ABSENT}>=1.0,<2.1  # why\n", [f"{ABSENT}>=1.0,<2.1"]),
        (f"# {ABSENT}\n\n   \nnumpy  # {ABSENT}\n", []),
        ("numpy>=999\nscikit_learn\nPyTest>=1\nTorch<1\n", ["numpy>=999", "Torch<1"]),
        ("jupyter>=999\npapermill>=999\nipython>=999\nipykernel\n", []),
    ],
)
def test_what_no_installed_version_fits_is_unmet_except_the_kernels_packages(tmp_path, text, lines):
    assert install.unmet(write(tmp_path, text)) == lines
    assert install.unmet() == []  # This repository's own requirements are met.


def make_wheel(folder, version, requires=""):
    name = f"s9_probe-{version}"
    info = f"Metadata-Version: 2.1\nName: s9-probe\nVersion: {version}\n{requires}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("s9_probe.py", "")
        wheel.writestr(f"{name}.dist-info/METADATA", info)
        wheel.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """pip, which installs into a folder of the test, from a package that the test makes."""
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": tmp_path, "TARGET": tmp_path / "there"}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.syspath_prepend(tmp_path / "there")
    path = write(tmp_path, "numpy>=1\ns9-probe>=1,<2\n")
    unmet = install.unmet
    monkeypatch.setattr(install, "unmet", lambda: unmet(path))


def test_pip_installs_what_is_unmet_once_and_says_so(tmp_path, pip, capfd):
    make_wheel(tmp_path, "1.0")
    make_wheel(tmp_path, "2.0")
    install.install_missing()
    assert (tmp_path / "there" / "s9_probe.py").exists()
    assert capfd.readouterr().out == "installing s9-probe>=1,<2\n"
    install.install_missing()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kept", ["ipykernel", "torch"])
def test_the_kernels_packages_and_a_torch_that_fits_keep_their_versions(tmp_path, pip, kept):
    make_wheel(tmp_path, "1.0", f"Requires-Dist: {kept}<1\n")
    with pytest.raises(SystemExit, match=r"pip cannot install s9-probe>=1,<2 \(.*\): install them, then re"):
        install.install_missing()
    assert not (tmp_path / "there").exists()


def test_it_needs_the_standard_library_and_pip_alone():
    code = f"import sys; sys.path.append({str(Path(install.__file__).parent)!r}); import install"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
