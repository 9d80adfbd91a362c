"""Two processes on this machine's CPU, joined as `accelerate launch` joins them."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain

import numpy as np
import psutil
import pytest
import torch
from conftest import REPO, free_port
from small import SETTINGS, SmallNet, fit_small, fork_server, small_data

from dataset import loaders
from s9 import records
from s9.engine import checkpoint, hardware
from s9.engine.hardware import make_accelerator
from s9.errors import UserError

CONTEXT = fork_server()


def joined(rank, port, results, work, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    torch.set_num_threads(1)
    try:
        results.put((rank, work(rank, *arguments)))
    except BaseException as error:
        results.put((rank, repr(error)))  # Else the test would wait for it, and not hear why.
        raise
    torch.distributed.destroy_process_group()


def two(work, *arguments):
    """What work(rank, *arguments) returns in each of two processes that know of each other."""
    port, results = free_port(), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=joined, args=(rank, port, results, work, arguments)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0, found
    return found[0], found[1]


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


def trained(rank, folder, epochs, resume):
    """Batches of 27: one process gets 14 images of each, the other 13."""
    settings = replace(SETTINGS, epochs=epochs, batch_size=27)
    network, history = fit_small(folder, settings, lambda: SmallNet(dropout=0), resume=resume)
    return history, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def test_two_processes_give_the_losses_and_weights_of_one_and_resume(tmp_path):
    alone, weights = trained(0, tmp_path / "alone", 3, False)
    (first, its_weights), (second, others) = two(trained, str(tmp_path / "two"), 3, False)
    assert [row[:-1] for row in first] == [row[:-1] for row in second]
    for row, same in zip(first, alone, strict=True):
        assert row[1:6] == pytest.approx(same[1:6], abs=2e-4)
    for name, tensor in weights.items():
        np.testing.assert_allclose(its_weights[name], tensor, atol=2e-5, err_msg=name)
        np.testing.assert_array_equal(its_weights[name], others[name], err_msg=name)
    run = records.read(tmp_path / "two")
    assert run.history == first
    assert run.log.count("/30 (") == 3  # the test set, whole, once an epoch
    assert all(re.fullmatch(r"Train: Loss=.*100%.*3/3.*", line) for line in run.log.splitlines()[1::4])

    (run.folder / checkpoint.PREVIOUS).replace(run.folder / records.CHECKPOINT)  # As if stopped in epoch 3.
    again, same_weights = two(trained, str(run.folder), 3, True)[0]
    assert [row[:-1] for row in again] == [row[:-1] for row in first]
    assert all(np.array_equal(tensor, same_weights[name]) for name, tensor in its_weights.items())


def test_a_last_batch_too_small_for_all_is_named():
    with pytest.raises(ValueError, match="last batch has 1 images for 2 processes: change --batch-size"):
        loaders(small_data(), 79, processes=2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE is set, but not RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: unset it"),
        ("RANK= LOCAL_RANK=0 WORLD_SIZE=1", "RANK is set, but not RANK, MASTER_ADDR"),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=two MASTER_ADDR=a MASTER_PORT=1", "WORLD_SIZE=two is not a number"),
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
