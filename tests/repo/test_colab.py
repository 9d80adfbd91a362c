"""The notebook in Colab: tests/colab.txt says what is installed there.

S9_LONG=1 installs all that, under the same version of Python where this machine has one, and runs the
notebook in it: minutes, some 7 GB of disk, and the only test that needs a network.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import PROXIES, long_tests
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from test_notebook import NOTEBOOK, drew_bars, holds_widgets, make_origin, outputs, pictures, text_of

from s9 import install

INSTALLED = Path(__file__).parent.parent / "colab.txt"
LACKING = ["captum"]
"""What is required and not there: the notebook installs it."""
PYTHON = "3.12"
"""Colab's."""


def lines(path):
    found = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return list(filter(None, found))


def test_what_colab_has_is_new_enough_and_all_that_is_required_but_for_what_is_known():
    there = dict(line.split("==") for line in lines(INSTALLED))
    required = [Requirement(line) for line in lines(install.REQUIREMENTS)]
    needed = {one.name: one.specifier for one in required if not one.name.startswith(install.KERNEL)}
    assert [name for name in needed if name not in there] == LACKING
    assert [name for name in needed if name in there and there[name] not in needed[name]] == []


@pytest.fixture(scope="module")
def python(outside, tmp_path_factory):
    """A Python of a new environment that has what Colab has, google.colab included, as far as it matters."""
    if not long_tests():
        pytest.skip("installs 7 GB of packages: set S9_LONG=1")
    folder = tmp_path_factory.mktemp("colab") / "environment"
    environment = {name: value for name, value in os.environ.items() if name.lower() not in PROXIES}
    subprocess.run([shutil.which(f"python{PYTHON}") or sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", INSTALLED]
    subprocess.run(command, check=True, env=environment)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", where], encoding="utf-8").strip())
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").touch()
    (packages / "colab.pth").write_text("import google.colab\n", encoding="utf-8")
    yield python
    shutil.rmtree(folder)


def test_the_notebook_runs_in_what_colab_has_installed(python, tmp_path):
    origin, content, kernels = (tmp_path / name for name in ("origin", "content", "kernels"))
    content.mkdir()
    make_origin(origin)
    (kernels / "colab").mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Colab", "language": "python"}
    (kernels / "colab" / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    manager = AsyncKernelManager(
        kernel_name="colab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {"S9_REPO_URL": str(origin), "DATASET": "digits", "EPOCHS": "2"}
    environment |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "COLAB_RELEASE_TAG": "test"}
    with pytest.MonkeyPatch.context() as patch:
        proxies = [name for proxy in PROXIES for name in (proxy, proxy.upper())]  # What lacks is installed.
        for name in ("DATA_DIR", "RUN_DIR", "CIFAR10_DIR", "PYTHONPATH", *proxies):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        where = {"metadata": {"path": str(content)}}
        NotebookClient(notebook, km=manager, timeout=600, resources=where).execute()
    text = text_of(notebook)
    assert [line for line in text.splitlines() if line.startswith("installing")] == ["installing captum>=0.9"]
    assert "Warning" not in text
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert drew_bars(notebook)
    assert not holds_widgets(notebook)
    assert len(pictures(notebook)) == len(list(content.glob("S9/runs/best-digits-1/*.png")))
