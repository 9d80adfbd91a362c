"""install.py: what does not meet requirements.txt, and what pip may change."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pip
import pytest

from s9 import install

ABSENT = "no-such-package-anywhere"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"numpy>=1\n{ABSENT}>=1.0,<2.1  # why\n", [f"{ABSENT}>=1.0,<2.1"]),
        (f"# {ABSENT}\n\n   \nnumpy  # {ABSENT}\n", []),
        ("numpy>=999\nscikit_learn\nPyTest>=1\nTorch<1\n", ["numpy>=999", "Torch<1"]),
        ("jupyter>=999\npapermill>=999\nipython>=999\nipykernel\n", []),
    ],
)
def test_what_no_installed_version_fits_is_unmet_but_for_the_kernels(tmp_path, monkeypatch, text, lines):
    assert install.unmet() == []  # This repository's own requirements are met.
    monkeypatch.setattr(install, "REQUIREMENTS", tmp_path / "requirements.txt")
    install.REQUIREMENTS.write_text(text, encoding="utf-8")
    assert install.unmet() == lines


def make_wheel(folder, version, requires=""):
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: s9-probe\nVersion: {version}\n{requires}",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"s9_probe-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("s9_probe.py", "")
        for name, text in files.items():
            wheel.writestr(f"s9_probe-{version}.dist-info/{name}", text)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Where pip installs what is required, from a package that the test makes."""
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": tmp_path, "TARGET": tmp_path / "there"}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.syspath_prepend(tmp_path / "there")
    monkeypatch.setattr(install, "REQUIREMENTS", tmp_path / "requirements.txt")
    install.REQUIREMENTS.write_text("numpy>=1\ns9-probe>=1,<2\n", encoding="utf-8")
    return tmp_path / "there"


def test_pip_installs_what_is_unmet_once_and_says_so(tmp_path, there, capfd):
    make_wheel(tmp_path, "1.0")
    make_wheel(tmp_path, "2.0")
    install.install_missing()
    assert (there / "s9_probe.py").exists()
    install.install_missing()
    assert capfd.readouterr().out == "installing s9-probe>=1,<2\n"


@pytest.mark.parametrize("kept", ["ipykernel", "torch"])
def test_the_kernels_packages_and_a_torch_that_fits_keep_their_versions(tmp_path, there, kept):
    make_wheel(tmp_path, "1.0", f"Requires-Dist: {kept}<1\n")
    with pytest.raises(SystemExit, match=r"pip cannot install s9-probe>=1,<2 \(.*\): install them, then re"):
        install.install_missing()
    assert not there.exists()


def test_it_needs_the_standard_library_and_pip_alone(tmp_path):
    (tmp_path / "pip").symlink_to(Path(pip.__file__).parent)
    paths = [str(tmp_path), str(Path(install.__file__).parent)]
    code = f"import sys; sys.path += {paths}; import install"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
