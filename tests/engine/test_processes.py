"""Two processes on this machine's CPU, joined as `accelerate launch` joins them."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain
from multiprocessing import set_forkserver_preload
from unittest.mock import patch

import numpy as np
import psutil
import pytest
import torch
from conftest import REPO, free_port
from small import SETTINGS, SmallNet, fit_small, small_data
from torch.multiprocessing import start_processes

from dataset import loaders
from s9 import records
from s9.engine import checkpoint, hardware
from s9.engine.hardware import make_accelerator
from s9.errors import UserError


@pytest.mark.parametrize("size", [32, 27])
def test_two_processes_see_every_image_exactly_once(size):
    # Labels that number the images: what a loader gives can be counted.
    data = small_data()._replace(train_labels=np.arange(80), test_labels=np.arange(30))
    first, second = (loaders(data, size, workers=0, process=rank, processes=2) for rank in (0, 1))
    for one, other, count in zip(first, second, (80, 30), strict=True):
        one.set_epoch(1)
        other.set_epoch(1)
        numbers = [[labels.tolist() for _, labels in loader] for loader in (one, other)]
        assert len(numbers[0]) == len(numbers[1])
        assert sorted(chain(*numbers[0], *numbers[1])) == list(range(count))


def train_small(folder, resume=False):
    """Batches of 27: of two processes one gets 14 images of each, the other 13."""
    settings = replace(SETTINGS, batch_size=27)
    network, history = fit_small(folder, settings, lambda: SmallNet(dropout=0), resume=resume)
    return [row[:-1] for row in history], network.state_dict()


def joined(rank, port, folder, resume):
    launch = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in launch.items()} | {"ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    torch.save(train_small(folder, resume), f"{folder}-{rank}.pt")
    torch.distributed.destroy_process_group()


def train_as_two(folder, resume=False):
    """What train_small() returns in each of two processes that know of each other."""
    set_forkserver_preload(["small"])  # Python 3.11's server is not told where to find it.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        start_processes(joined, (free_port(), folder, resume), nprocs=2, start_method="forkserver")
    return [torch.load(f"{folder}-{rank}.pt") for rank in (0, 1)]


def test_two_processes_give_the_losses_and_weights_of_one_and_resume(tmp_path):
    alone, weights = train_small(tmp_path / "alone")
    (first, its_weights), (second, others) = train_as_two(tmp_path / "two")
    assert first == second
    for row, same in zip(first, alone, strict=True):
        assert row[1:6] == pytest.approx(same[1:6], abs=2e-4)
    for name, tensor in weights.items():
        torch.testing.assert_close(its_weights[name], tensor, atol=2e-5, rtol=1e-7)
        assert torch.equal(its_weights[name], others[name]), name
    run = records.read(tmp_path / "two")
    assert [row[:-1] for row in run.history] == first
    assert run.log.count("/30 (") == 3  # the test set, whole, once an epoch
    assert all(re.fullmatch(r"Train: Loss=.*100%.*3/3.*", line) for line in run.log.splitlines()[1::4])

    (run.folder / checkpoint.PREVIOUS).replace(run.folder / records.CHECKPOINT)  # As if stopped in epoch 3.
    again, same_weights = train_as_two(run.folder, resume=True)[0]
    assert again == first
    assert all(torch.equal(tensor, same_weights[name]) for name, tensor in its_weights.items())

    (run.folder / checkpoint.PREVIOUS).replace(run.folder / records.CHECKPOINT)
    state = checkpoint.load(run.folder, run.settings)  # With sums that one process left in that epoch:
    state["progress"] |= {"images": 20, "correct": 8, "loss": 100.0}
    checkpoint.save(run.folder, state)
    again, _ = train_as_two(run.folder, resume=True)[0]
    assert again[2][2] == pytest.approx((80 * first[2][2] + 100) / 100, abs=1e-4)
    assert again[2][3] == pytest.approx((80 * first[2][3] + 800) / 100, abs=0.01)
    assert (again[:2], again[2][4:]) == (first[:2], first[2][4:])


def test_a_last_batch_too_small_for_all_is_named():
    with pytest.raises(ValueError, match="last batch has 1 images for 2 processes: change --batch-size"):
        loaders(small_data(), 79, processes=2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE is set, but not RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: unset it"),
        ("RANK= LOCAL_RANK=0 WORLD_SIZE=1", "RANK is set, but not RANK, MASTER_ADDR"),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=two MASTER_ADDR=a MASTER_PORT=1", "WORLD_SIZE=two is not a number"),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=b", "MASTER_PORT=b is not a number"),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=65536", "MASTER_PORT=65536 is no port"),
    ],
)
def test_an_incomplete_launch_is_one_line(monkeypatch, variables, message):
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    with pytest.raises(UserError, match=f"^{message}"):
        make_accelerator("cpu", "float32")


def test_the_environment_does_not_configure_accelerate(monkeypatch):
    variables = "GRADIENT_ACCUMULATION_STEPS=4 DYNAMO_BACKEND=inductor TORCH_DEVICE=meta USE_FSDP=true"
    for variable in variables.split():
        monkeypatch.setenv(*f"ACCELERATE_{variable}".split("="))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator = make_accelerator("cpu", "float32")
    assert accelerator.gradient_accumulation_steps == 1
    assert (accelerator.mixed_precision, accelerator.device.type) == ("no", "cpu")
    assert accelerator.state.dynamo_plugin.backend == "NO"
    assert str(accelerator.distributed_type) == "DistributedType.NO"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_auto_uses_a_gpu_unless_accelerate_launched_on_cpus(monkeypatch):
    for cuda, mps, device in ((False, False, "cpu"), (False, True, "mps"), (True, False, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert hardware.default_device() == device
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert hardware.default_device() == "cpu"


def launch(folder, *options):
    """What `accelerate launch` runs underneath on several GPUs; on CPUs it would itself want MPI."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "train.py", "--preset", "fast", "--dataset", "digits"]
    command += ["--epochs", "1", "--device", "cpu", "--precision", "float32", "--out", str(folder), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=REPO, env=environment, start_new_session=True, **pipes)


def test_a_killed_process_ends_the_job_which_then_resumes(tmp_path):
    process = launch(tmp_path / "run")
    for line in process.stdout:
        if line.startswith("Epoch 1"):
            break
    time.sleep(1)
    psutil.Process(process.pid).children()[-1].kill()
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "train.py: epoch 1: another process of this job ended; everything before this" in output, output
    again = launch(tmp_path / "run", "--resume")
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert output.count("Test set: Average loss") == 1
    assert output.count("Epoch 1") == 1
    assert len(records.read(tmp_path / "run").history) == 1
