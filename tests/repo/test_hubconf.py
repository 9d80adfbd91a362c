"""torch.hub as other programs meet it, in processes of their own."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_repository import NAMES, REPO, imported

from dataset import test_transform
from model import NETWORKS, build
from s9.data import photos
from s9.data.cifar10 import CLASSES
from s9.records import WEIGHTS


def python(code, cwd, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


LOADED = """
import json, os, sys, types
sys.modules["model"] = own = types.ModuleType("model")
import torch
from PIL import Image

repo, names = sys.argv[1], sys.argv[2:]
path = list(sys.path)
load = lambda name, **options: torch.hub.load(repo, name, source="local", **options)
facts = {"classes": load("classes")}
for name in names:
    network = load(name, pretrained=True)
    torch.save([network.state_dict(), network.training], name + ".pt")
fresh = load("best")
torch.save(load("transform")(Image.open("photo.png")), "photo.pt")
facts["training"] = fresh.training
facts["shape"] = list(fresh(torch.zeros(2, 3, 32, 32)).shape)
facts["left alone"] = sys.modules["model"] is own and sys.path == path
facts["left behind"] = sorted({"records", "errors", "dataset", "photos", "settings"} & set(sys.modules))

# As if it had come from GitHub before: then torch.hub asks nobody.
torch.hub.set_dir("hub")
os.mkdir("hub")
os.symlink(repo, "hub/YOUR_NAME_S9_main")
github = "YOUR_NAME/S9:main"
how = {"skip_validation": True, "trust_repo": True}
facts["entrypoints"] = torch.hub.list(github, **how)
facts["help"] = torch.hub.help(github, "fast", **how)
facts["from GitHub"] = type(torch.hub.load(github, "fast", pretrained=True, verbose=False, **how)).__name__
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def committed():
    """The networks whose weights are in results/."""
    return sorted({path.parent.name for path in REPO.glob(f"results/*/{WEIGHTS}")} & set(NETWORKS))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, committed):
    """A folder in which a program with a model.py of its own has loaded all that torch.hub gives; facts."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    done = python(LOADED, folder, REPO, *committed)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_hub_lists_the_networks_the_transform_and_the_classes_and_no_more(elsewhere):
    facts = elsewhere[1]
    assert set(facts["entrypoints"]) == {*NETWORKS, "transform", "classes"}
    assert "494,368 parameters" in facts["help"]
    assert facts["from GitHub"] == "FastNet"


def test_pretrained_networks_have_the_committed_weights(elsewhere, committed):
    assert {"reference", "fast"} <= set(committed)
    for name in committed:
        weights, training = torch.load(elsewhere[0] / f"{name}.pt", weights_only=True)
        expected = safetensors.torch.load_file(REPO / "results" / name / WEIGHTS)
        assert weights.keys() == expected.keys() == build(name).state_dict().keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
        assert not training


def test_a_network_that_is_not_pretrained_is_a_new_one(elsewhere):
    assert elsewhere[1]["training"] is True
    assert elsewhere[1]["shape"] == [2, 10]


def test_the_transform_does_to_a_photo_what_the_repository_does(elsewhere):
    given = torch.load(elsewhere[0] / "photo.pt", weights_only=True)
    expected = test_transform()(image=photos.read(elsewhere[0] / "photo.png"))["image"]
    assert given.dtype == torch.float32
    assert torch.equal(given, expected)
    assert tuple(elsewhere[1]["classes"]) == CLASSES


def test_the_callers_own_modules_are_neither_taken_nor_hidden(elsewhere):
    assert elsewhere[1]["left alone"]
    assert elsewhere[1]["left behind"] == []


def test_weights_that_are_not_there_yet_are_told_in_one_line(tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    for path in REPO.glob("*.py"):
        (clone / path.name).symlink_to(path)
    code = "import sys, torch; torch.hub.load(sys.argv[1], 'best', source='local', pretrained=True)"
    done = python(code, tmp_path, clone)
    assert done.returncode == 1
    message = "results/best holds no weights yet: train them (python train.py --preset best)"
    assert done.stderr.splitlines()[-1] == f"errors.UserError: {message}"


def test_the_dependencies_are_what_is_imported_on_the_way():
    """Of hubconf.py, and of each module of ours that it imports, directly or not, as that is loaded."""
    reached, packages = {"hubconf"}, set()
    for _ in NAMES:
        found = set().union(*(imported(REPO / f"{name}.py", functions=name == "hubconf") for name in reached))
        reached |= found & NAMES
        packages = found - NAMES - sys.stdlib_module_names
    tree = ast.parse((REPO / "hubconf.py").read_text())
    (listed,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "dependencies"
    )
    assert "dataset" in reached
    assert sorted(packages) == sorted(listed)
