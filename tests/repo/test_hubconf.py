"""torch.hub as other programs meet it, in processes of their own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import REPO
from PIL import Image

from model import NETWORKS, build
from s9.data import photos
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.device_loader import normalise
from s9.records import WEIGHTS


def run_program(code, folder, *arguments):
    """What it prints, run as a file, which spawned workers import."""
    (folder / "program.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "program.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import copy, json, os, pickle, sys, types
own = {name: types.ModuleType(name) for name in ("model", "s9", "photos")}
sys.modules.update(own)
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
five = load("best", classes=5, pretrained=True)
transform = load("transform")
torch.save(transform(Image.open("photo.png")), "photo.pt")
images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
whole = torch.nn.Sequential(five, torch.nn.Softmax(1))
torch.save([whole, transform, images, whole(images)], "all.pt")
facts["training"] = fresh.training
some = [load("fast", classes=count) for count in (3, 17, 100)]
facts["shapes"] = [list(network(images).shape) for network in (fresh, five, *some)]
facts["copied"] = torch.equal(copy.deepcopy(five)(images), five(images))
facts["same class"] = type(pickle.loads(pickle.dumps(five))) is type(fresh)
facts["left alone"] = all(sys.modules[name] is module for name, module in own.items()) and sys.path == path
unneeded = {"albumentations", "cv2", "pyarrow", "pooch", "torchsummary", "torchvision"}
facts["packages"] = sorted(unneeded & set(sys.modules))

# As if it had come from GitHub before, where nobody can answer a question: standard input is closed.
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

SAVED = """
import torch

class Photos(torch.utils.data.Dataset):
    def __init__(self, transform):
        self.transform = transform
    def __len__(self):
        return 2
    def __getitem__(self, index):
        from PIL import Image
        return self.transform(Image.open("photo.png"))

if __name__ == "__main__":
    network, transform, images, expected = torch.load("all.pt", weights_only=False)
    assert torch.equal(network(images), expected) and not network[0].training
    workers = torch.utils.data.DataLoader(
        Photos(transform), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )
    (batch,) = workers
    assert torch.equal(batch[0], torch.load("photo.pt"))
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        assert torch.allclose(pool.apply(network.requires_grad_(False), [images]), expected)
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
    return folder, json.loads(run_program(LOADED, folder, REPO, *committed).splitlines()[-1])


def test_hub_lists_the_networks_the_transform_and_the_classes_and_no_more(elsewhere):
    facts = elsewhere[1]
    assert set(facts["entrypoints"]) == {*NETWORKS, "transform", "classes"}
    assert "494,368 parameters" in facts["help"]
    assert facts["from GitHub"] == "FastNet"
    assert facts["left alone"] and facts["packages"] == []


def test_pretrained_networks_have_the_committed_weights(elsewhere, committed):
    assert {"reference", "fast"} <= set(committed)
    for name in committed:
        weights, training = torch.load(elsewhere[0] / f"{name}.pt", weights_only=True)
        expected = safetensors.torch.load_file(REPO / "results" / name / WEIGHTS)
        assert weights.keys() == expected.keys() == build(name).state_dict().keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
        assert not training
    facts = elsewhere[1]
    assert facts["training"] is True and [shape[1] for shape in facts["shapes"]] == [10, 5, 3, 17, 100]


def test_a_network_and_the_transform_can_be_copied_saved_whole_and_sent_to_spawned_workers(elsewhere):
    folder, facts = elsewhere
    assert facts["copied"] and facts["same class"]
    run_program(SAVED, folder)


def test_the_transform_does_to_a_photo_what_the_repository_does(elsewhere):
    given = torch.load(elsewhere[0] / "photo.pt", weights_only=True)
    image = torch.from_numpy(photos.read(elsewhere[0] / "photo.png"))[None]
    assert given.dtype == torch.float32
    assert torch.equal(given, normalise(image, torch.tensor(MEAN), torch.tensor(STD))[0])
    assert tuple(elsewhere[1]["classes"]) == CLASSES
