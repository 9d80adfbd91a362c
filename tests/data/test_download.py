"""download.py with good, bad and dying mirrors (mirrors.py); nothing in its cache is trusted unverified."""

import errno
import hashlib
import socket
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from mirrors import (
    ARCHIVE,
    FILES,
    MIN_RATE,
    assert_torchvision_loads,
    fill,
    fill_as_a_process,
    leftovers,
    md5,
)
from torchvision.datasets import CIFAR10

from s9.data.download import SOURCES, Source
from s9.errors import UserError

FILLED = sorted([*FILES, "cifar-10-batches-py", "cifar-10-batches-py/readme.html", "cifar-10-python.tar.gz"])


def test_published_sources():
    """The official host comes last, and only it may be slow; every archive is the one of torchvision."""
    assert [source.min_rate for source in SOURCES] == [200_000, 200_000, 200_000, 2_000]
    for source in SOURCES:
        for url, name, known_hash in source.files:
            algorithm, _, digest = known_hash.partition(":")
            assert url.startswith("https://")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
            assert name.endswith(".parquet") or digest == "c58f30108f718f92721af3b95e74349a"


@pytest.mark.parametrize("behaviour", ["good", "moved", "lengthless"])
def test_archive(mirrors, tmp_path, capsys, behaviour):
    cache = tmp_path / "new" / "cache"
    assert fill(cache, mirrors.archive(behaviour)) == cache
    assert_torchvision_loads(cache)
    assert leftovers(cache) == FILLED
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
        ("html", "wrong checksum"),
        ("wrong", "wrong checksum"),
        ("cut", "IncompleteRead"),
        ("stall", "Read timed out."),
        ("mute", "Read timed out."),
        ("loop", "Exceeded 30 redirects."),
        ("tire", "kB/s"),
    ],
)
def test_bad_source_is_left_for_the_next(mirrors, tmp_path, capfd, behaviour, reason):
    bad = mirrors.archive(behaviour)
    with pytest.raises(UserError, match=reason):
        fill(tmp_path, bad)
    assert leftovers(tmp_path) == []
    capfd.readouterr()

    assert fill(tmp_path, bad, mirrors.archive("good")) == tmp_path
    assert_torchvision_loads(tmp_path)
    out, err = capfd.readouterr()
    assert out.startswith(f"CIFAR-10: {behaviour} failed (")
    assert out.endswith(f"{reason}), trying the next\n") and out.count("\n") == 1
    assert "\n" not in err  # the bars only, each wiped


def test_refused_connection_and_unknown_host(mirrors, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        places = {"refused": f"127.0.0.1:{unused.getsockname()[1]}", "unknown": "no.such.invalid"}
        sources = [
            Source(name, ((f"http://{place}/x", CIFAR10.filename, f"md5:{md5(ARCHIVE)}"),))
            for name, place in places.items()
        ]
        with pytest.raises(UserError, match=r"refused failed \(.*[Rr]efused\), unknown failed \(.+\); put"):
            fill(tmp_path, *sources)


def test_a_source_may_crawl_down_to_its_own_minimum(mirrors, tmp_path):
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("tire", MIN_RATE / 100)))


def test_all_fail(mirrors, tmp_path, capsys):
    with pytest.raises(UserError) as caught:
        fill(tmp_path, mirrors.archive("missing"), mirrors.parquet(train="html"))
    assert str(caught.value) == (
        "CIFAR-10 could not be downloaded: missing failed (HTTP 404), parquet failed (wrong checksum); put "
        f"cifar-10-python.tar.gz into {tmp_path}, or name a folder that holds CIFAR-10 with --data-dir or "
        "CIFAR10_DIR, or use --dataset digits"
    )
    assert capsys.readouterr().out.count("trying the next") == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("layout", ["archive", "parquet"])
def test_second_call_stays_off_the_network(mirrors, tmp_path, layout):
    wanted = mirrors.archive("good") if layout == "archive" else mirrors.parquet()
    fill(tmp_path, wanted)
    requests, files = mirrors.requests.copy(), leftovers(tmp_path)
    assert fill(tmp_path, mirrors.archive("wrong"), wanted) == tmp_path
    assert (mirrors.requests, leftovers(tmp_path)) == (requests, files)


@pytest.mark.parametrize(("damage", "name"), [("flip", "data_batch_3"), ("remove", "batches.meta")])
@pytest.mark.parametrize("keep_archive", [True, False])
def test_damaged_batches_are_mended(mirrors, tmp_path, damage, keep_archive, name):
    fill(tmp_path, mirrors.archive("good"))
    path = tmp_path / "cifar-10-batches-py" / name
    if damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path.unlink()
    if not keep_archive:
        (tmp_path / CIFAR10.filename).unlink()
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))
    assert mirrors.requests["good/archive"] == (1 if keep_archive else 2)


@pytest.mark.parametrize("moves", [0, 4])
def test_killed_while_it_moves_the_batches(mirrors, tmp_path, monkeypatch, moves):
    real, done = Path.replace, []

    def dying_replace(self, target):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying_replace)
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path, mirrors.archive("good"))
    (tmp_path / CIFAR10.filename).unlink()
    with pytest.raises(UserError):  # what is there is not trusted
        fill(tmp_path, mirrors.archive("missing"))
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))


def test_two_processes_at_once(mirrors, tmp_path):
    """Each from its own memory, as two runs on one machine do it."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        calls = [pool.submit(fill_as_a_process, tmp_path, mirrors.archive("meet")) for _ in range(2)]
        assert [call.result() for call in calls] == [tmp_path, tmp_path]
    assert mirrors.requests["meet/archive"] == 2
    assert_torchvision_loads(tmp_path)
    assert leftovers(tmp_path) == FILLED


def test_killed_half_way_through_a_download(mirrors, tmp_path):
    """Without a chance to tidy up: what it left is taken for nothing."""
    process = get_context("spawn").Process(
        target=fill_as_a_process, args=(tmp_path, mirrors.archive("stall"))
    )
    process.start()
    while not any(path.stat().st_size for path in tmp_path.iterdir()):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not (tmp_path / CIFAR10.filename).exists()
    with pytest.raises(UserError, match="HTTP 404"):
        fill(tmp_path, mirrors.archive("missing"))
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))


@pytest.mark.parametrize("damaged", [ARCHIVE[:-1], ARCHIVE[:99] + b"?" + ARCHIVE[100:]])
def test_a_damaged_archive_put_there_by_hand_is_not_opened(mirrors, tmp_path, monkeypatch, damaged):
    (tmp_path / CIFAR10.filename).write_bytes(damaged)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(UserError, match="HTTP 404"):
            fill(tmp_path, mirrors.archive("missing"))
    assert (tmp_path / CIFAR10.filename).read_bytes() == damaged
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_cache_that_is_no_folder(mirrors, tmp_path, cache):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"the cache folder .*file.* cannot be used \(.+\): name another"):
        fill(tmp_path / cache, mirrors.archive("good"))
    assert mirrors.requests.total() == 0


def test_full_disk_is_not_the_sources_fault(mirrors, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"cannot be used \(No space left on device\)"):
        fill(tmp_path, mirrors.archive("good"), mirrors.parquet())
    assert mirrors.requests == {"good/archive": 1}
