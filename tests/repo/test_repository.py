"""The shape of the repository: layers, sizes, links and requirements."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPO
from pages import PAGES, read, required

ROOT = sorted(REPO.glob("*.py"))
CODE = [*ROOT, *sorted((REPO / "s9").rglob("*.py")), *sorted((REPO / "tools").glob("*.py"))]
TESTS = sorted((REPO / "tests").rglob("*.py"))
LESSON = {"model", "dataset", "utils"}
COMMANDS = {"train", "predict", "assignment", "hubconf"}
DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
}
"""By import name, where the name of the package differs."""
OPTIONAL = {"onnx", "onnxruntime", "google", "pip"}
"""Of tools/export_onnx.py; there in Colab; there with Python."""


def imported(path):
    """The modules that a file imports: {"torch.nn", "s9", "s9.records", ...}, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(REPO).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def tops(path):
    return {name.split(".")[0] for name in imported(path)}


def name_of(path):
    return path.relative_to(REPO).as_posix()


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=name_of)
def test_a_file_has_at_most_400_lines(path):
    assert len(read(path).splitlines()) <= 400


def test_the_root_is_the_lesson_and_its_commands():
    assert {path.stem for path in ROOT} == LESSON | COMMANDS
    assert len(read(REPO / "README.md").splitlines()) <= 250


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_imports_point_down(path):
    """Commands and tools over the lesson over s9/; within s9/, plots, analysis and data without engine."""
    layer = path.parent.name if path.parent != REPO / "s9" else "s9"
    below = {"model": set(), "dataset": {"s9"}, "utils": {"model", "dataset", "s9"}}
    allowed = LESSON | {"s9", "tools"} | (COMMANDS if path.parent.name == "tools" else set())
    if path in ROOT:
        allowed = below.get(path.stem, allowed)
    elif "s9" in path.relative_to(REPO).parts:
        allowed = {"s9"}
    assert tops(path) & (LESSON | COMMANDS | {"s9", "tools"}) <= allowed
    if layer in ("plots", "analysis", "data"):
        assert not {name for name in imported(path) if name.startswith("s9.engine")}


def test_model_needs_torch_alone(tmp_path):
    assert tops(REPO / "model.py") - sys.stdlib_module_names == {"torch"}
    (tmp_path / "model.py").write_text(read(REPO / "model.py"), encoding="utf-8")
    code = (
        "import model; print([sum(p.numel() for p in model.build(n).parameters()) for n in model.NETWORKS])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, encoding="utf-8")
    assert "199856" in printed


def test_every_package_that_is_imported_is_required():
    own = {"s9", "tools", *(path.stem for path in ROOT)}
    packages = {name for path in CODE for name in tops(path)} - own - sys.stdlib_module_names
    needed = {DISTRIBUTIONS.get(name, name) for name in packages}
    assert needed - required("requirements.txt") <= OPTIONAL
    assert {"onnx", "onnxruntime", "onnxscript"} <= required("requirements-dev.txt")


def headings(page):
    """The anchors of a page's headings on GitHub."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_pages_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        if not target.startswith("https://"):
            path, _, heading = target.partition("#")
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not heading or file.suffix == ".py" or heading in headings(read(file)), target


ASKED_FOR = (
    "The task", "Augmentations", "Model summary", "Receptive field", "Training log", "Performance graphs",
    "Misclassified images",
)  # fmt: skip


def test_the_readme_shows_what_the_assignment_asks_for_in_its_order_and_folds_what_is_long():
    text = read(REPO / "README.md")
    titles = [title for title in re.findall(r"^## (.*)$", text, re.MULTILINE) if title in ASKED_FOR]
    assert tuple(titles) == ASKED_FOR
    open_text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert len(open_text.splitlines()) <= 150
    assert "Conv2d-1 " in text and "Conv2d-1 " not in open_text
