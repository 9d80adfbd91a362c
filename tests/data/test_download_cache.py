"""The cache that download.py fills: nothing in it is trusted before it is verified."""

import errno
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from fuzzing import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from mirrors import (
    ARCHIVE,
    FILES,
    assert_torchvision_loads,
    fill,
    fill_as_a_process,
    leftovers,
    md5,
    tar_gz,
)
from torchvision.datasets import CIFAR10

from s9.data.download import RemoteFile, Source
from s9.errors import UserError


@pytest.mark.parametrize("layout", ["archive", "parquet"])
def test_second_call_stays_off_the_network(mirrors, tmp_path, layout):
    wanted = mirrors.archive("good") if layout == "archive" else mirrors.parquet()
    folder = fill(tmp_path, wanted)
    requests, files = mirrors.requests.copy(), leftovers(tmp_path)
    assert fill(tmp_path, mirrors.archive("wrong"), wanted) == folder
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


@pytest.mark.parametrize("moves", [0, 1, 4, len(FILES)])
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
    (tmp_path / CIFAR10.filename).unlink(missing_ok=True)
    with pytest.raises(UserError):  # what is there is not trusted
        fill(tmp_path, mirrors.archive("missing"))
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_hostile_archive_writes_nothing_outside(mirrors, tmp_path):
    """Even one with the expected checksum."""
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    name = "cifar-10-batches-py/data_batch_1"
    mirrors.contents["archive"] = tar_gz(
        [("../../outside", b"evil"), (link(name, str(outside)), b""), (name, b"evil")]
    )
    file = RemoteFile(
        mirrors.url("good/archive"), CIFAR10.filename, f"md5:{md5(mirrors.contents['archive'])}"
    )
    with pytest.raises(UserError, match="archive"):
        fill(cache, Source("hostile", "archive", (file,)))
    assert not outside.exists()
    assert leftovers(cache) == ["cifar-10-python.tar.gz"]


def test_two_processes_at_once(mirrors, tmp_path):
    """Each from its own memory, as two runs on one machine do it."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        calls = [pool.submit(fill_as_a_process, tmp_path, mirrors.archive("meet")) for _ in range(2)]
        assert [call.result() for call in calls] == [tmp_path, tmp_path]
    assert mirrors.requests["meet/archive"] == 2
    assert_torchvision_loads(tmp_path)
    assert leftovers(tmp_path) == sorted([*FILES, "cifar-10-batches-py", "cifar-10-python.tar.gz"])


def test_killed_half_way_through_a_download(mirrors, tmp_path):
    """Without a chance to tidy up: what it left is taken for nothing."""
    process = get_context("spawn").Process(
        target=fill_as_a_process, args=(tmp_path, mirrors.archive("stall"))
    )
    process.start()
    while not any(path.stat().st_size for path in tmp_path.rglob(CIFAR10.filename)):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not (tmp_path / CIFAR10.filename).exists()
    with pytest.raises(UserError, match="HTTP 404"):
        fill(tmp_path, mirrors.archive("missing"))
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("good")))


@examples(40)
@given(place=st.integers(0, len(ARCHIVE) - 1), new=st.binary(max_size=3), rest=st.integers(0, 2) | st.none())
def test_a_damaged_archive_put_there_by_hand_is_not_opened(mirrors, tmp_path_factory, place, new, rest):
    """Some bytes are others, or the rest is missing; tarfile never sees it; a good one takes its place."""
    cache = tmp_path_factory.mktemp("cache")
    damaged = ARCHIVE[:place] + new + (b"" if rest is None else ARCHIVE[place + rest :])
    assume(damaged != ARCHIVE)
    (cache / CIFAR10.filename).write_bytes(damaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(UserError, match="HTTP 404"):
            fill(cache, mirrors.archive("missing"))
    assert leftovers(cache) == [CIFAR10.filename]
    assert (cache / CIFAR10.filename).read_bytes() == damaged
    fill(cache, mirrors.archive("good"))
    assert_torchvision_loads(cache)


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
