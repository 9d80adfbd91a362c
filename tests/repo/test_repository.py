"""The shape of the repository: what the README promises of its modules, links and requirements."""

import ast
import re
import sys

import pytest
from conftest import REPO

MODULES = sorted(REPO.glob("*.py"))
NAMES = {path.stem for path in MODULES}

DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
}
"""Where the name to import is not the name to install."""

FOUNDATIONS = {
    "model",
    "receptive_field",
    "graphs",
    "dataset",
    "loaders",
    "download",
    "errors",
    "install",
    "photos",
}
TRAINING = {
    "utils",
    "optimizer",
    "records",
    "settings",
    "checkpoints",
    "faults",
    "hardware",
    "bars",
    "forecast",
}
"""The two lower layers; everything else composes them."""


def imported(path, functions=True):
    """Top-level names that a module imports: anywhere in it, or not in its functions."""
    names, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
        if functions or not isinstance(node, ast.FunctionDef):
            nodes.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_dependencies_point_one_way(path):
    allowed = NAMES
    if path.stem in FOUNDATIONS:
        allowed = FOUNDATIONS
    elif path.stem in TRAINING:
        allowed = FOUNDATIONS | TRAINING
    assert imported(path) & NAMES <= allowed


def required(name):
    lines = (REPO / name).read_text(encoding="utf-8").splitlines()
    return {re.match(r"[\w-]+", line)[0] for line in lines if line and not line.startswith("#")}


def test_every_package_that_is_imported_is_required():
    for path in MODULES:
        packages = imported(path) - NAMES - sys.stdlib_module_names
        needed = {DISTRIBUTIONS.get(name, name) for name in packages} - required("requirements.txt")
        assert needed <= ({"onnx", "onnxruntime"} if path.stem == "export" else set()), path.name
    assert {"onnx", "onnxruntime", "onnxscript"} <= required("requirements-dev.txt")


def headings(page):
    """What links may name of a page: its headings as GitHub writes them, small, with dashes for blanks."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_a_pages_links_and_pictures_are_there(name):
    page = (REPO / name).read_text(encoding="utf-8")
    found = {target for target in re.findall(r"\]\(([^)]+)\)", page) if not target.startswith("https://")}
    assert {"#layout", "model.py", "S9.ipynb", "Images/metrics.png"} <= found or name != "README.md"
    for target in found:
        path, _, heading = target.partition("#")
        assert (REPO / path).exists(), target
        assert not heading or heading in headings((REPO / (path or name)).read_text(encoding="utf-8")), target


def test_the_readme_names_every_module():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    for path in MODULES:
        assert f"(`{path.name}`)" in text or f"[`{path.name}`]({path.name})" in text, path.name


ASKED_FOR = (
    "The task", "Augmentations", "Model summary", "Receptive field", "Training log", "Performance graphs",
    "Misclassified images",
)  # fmt: skip


def test_the_readme_shows_what_the_assignment_asks_for_in_its_order():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    titles = [title for title in re.findall(r"^### (.*)$", text, re.MULTILINE) if title in ASKED_FOR]
    assert tuple(titles) == ASKED_FOR


def test_what_is_long_in_the_readme_is_folded():
    """So that a reader finds the rest."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    parts = re.findall(r"<!-- (\S+): made by .*?<!-- end of \1 -->", text, re.DOTALL)
    assert {"summary", "receptive-field", "log", "dilated", "validation"} <= set(parts)
    open_text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    for name, part in re.findall(r"<!-- (\S+): made by(.*?)<!-- end of \1 -->", open_text, re.DOTALL):
        assert part.count("\n") <= 25, name
