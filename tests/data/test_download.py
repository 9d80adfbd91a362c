"""download.py with good, bad and dying mirrors (mirrors.py); nothing in its cache is trusted unverified."""

import errno
import re
import socket
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mirrors import ARCHIVE, FILES, MIN_RATE, assert_torchvision_loads, fill, leftovers
from torchvision.datasets import CIFAR10

from s9.data import download
from s9.data.download import SOURCES, Source
from s9.errors import UserError

FILLED = sorted([*FILES, "cifar-10-batches-py", "cifar-10-batches-py/readme.html", "cifar-10-python.tar.gz"])


def test_the_official_host_comes_last_and_only_it_may_be_slow():
    assert [source.min_rate for source in SOURCES] == [200_000, 200_000, 200_000, 2_000]
    assert all(source.url.startswith("https://") and CIFAR10.filename in source.url for source in SOURCES)
    assert SOURCES[-1].url == CIFAR10.url


@pytest.mark.parametrize("behaviour", ["good", "moved", "lengthless"])
def test_a_filled_cache_stays_off_the_network(mirrors, tmp_path, capsys, behaviour):
    cache = tmp_path / "new" / "cache"
    assert fill(cache, mirrors.archive(behaviour)) == cache
    assert_torchvision_loads(cache)
    assert leftovers(cache) == FILLED
    requests = mirrors.requests.copy()
    assert fill(cache, mirrors.archive("wrong")) == cache
    assert (mirrors.requests, leftovers(cache)) == (requests, FILLED)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
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


def test_a_source_may_crawl_down_to_its_own_minimum(mirrors, tmp_path):
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("tire", MIN_RATE / 100)))


def test_if_all_fail_the_line_says_why_and_what_to_do(mirrors, tmp_path, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        refused = Source("refused", f"http://127.0.0.1:{unused.getsockname()[1]}/x")
        with pytest.raises(UserError) as caught:
            fill(tmp_path, mirrors.archive("missing"), Source("unknown", "http://no.such.invalid/x"), refused)
    reasons, advice = str(caught.value).split("; ")
    failed = r"missing failed \(HTTP 404\), unknown failed \(.+\), refused failed \(.*[Rr]efused\)"
    assert re.fullmatch(f"CIFAR-10 could not be downloaded: {failed}", reasons)
    assert advice == (
        f"put cifar-10-python.tar.gz into {tmp_path}, or name a folder that holds CIFAR-10 with --data-dir "
        "or CIFAR10_DIR, or use --dataset digits"
    )
    assert capsys.readouterr().out.count("trying the next") == 2
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "name", "keep_archive"), [("flip", "data_batch_3", True), ("remove", "batches.meta", False)]
)
def test_damaged_batches_are_mended(mirrors, tmp_path, damage, name, keep_archive):
    fill(tmp_path, mirrors.archive("good"))
    path = tmp_path / "cifar-10-batches-py" / name
    if damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path.unlink()
    if not keep_archive:
        (tmp_path / CIFAR10.filename).unlink()
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))
    assert mirrors.requests["good"] == (1 if keep_archive else 2)


def test_killed_while_it_moves_the_batches(mirrors, tmp_path, monkeypatch):
    real, done = Path.replace, []

    def dying_replace(self, target):
        if len(done) == 4:
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


def test_two_downloads_at_once(mirrors, tmp_path, monkeypatch):
    """As of two runs that start together on one machine; the server lets both begin before it answers."""
    monkeypatch.setattr(download, "SOURCES", (mirrors.archive("meet"),))
    monkeypatch.setattr(download, "TIMEOUT", 60)
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(download.cifar10, [tmp_path] * 2)] == [tmp_path] * 2
    assert mirrors.requests["meet"] == 2
    assert_torchvision_loads(tmp_path)
    assert leftovers(tmp_path) == FILLED


def test_a_damaged_archive_put_there_by_hand_is_not_opened(mirrors, tmp_path, monkeypatch):
    damaged = ARCHIVE[:99] + b"?" + ARCHIVE[100:]
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
        fill(tmp_path, mirrors.archive("good"), mirrors.archive("missing"))
    assert mirrors.requests == {"good": 1}
