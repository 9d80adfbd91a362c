"""download.py against a server on the loopback interface that plays good, bad and dying mirrors."""

import errno
import hashlib
import io
import logging
import pickle
import socket
import tarfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from torchvision.datasets import CIFAR10

import download
from download import PARQUET_FOLDER, SOURCES, Patience, RemoteFile, Source
from errors import UserError

PATIENCE = Patience(timeout=0.5, floor=30_000, window=0.15)
STEP = 0.02  # seconds between two pieces of a crawling answer
TRAIN, TEST = b"train parquet " * 1000, b"test parquet " * 1000


def batch_files() -> dict[str, bytes]:
    """CIFAR-10 in torchvision's layout with 4 random images per batch: paths under the root, contents."""
    random = np.random.default_rng(0)
    names = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    files = {
        name: {"data": random.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 1, 2, 3]} for name in names
    }
    files["batches.meta"] = {"label_names": [f"class {index}" for index in range(10)]}
    return {f"cifar-10-batches-py/{name}": pickle.dumps(content) for name, content in files.items()}


def tar_gz(members: list[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


FILES = batch_files()
ARCHIVE = tar_gz([*FILES.items(), ("cifar-10-batches-py/readme.html", b"<html></html>")])


class Mirrors(ThreadingHTTPServer):
    """Answers by the path's first part, and counts requests by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests = Counter()
        self.contents = {"archive": ARCHIVE, "train": TRAIN, "test": TEST}
        self.over = threading.Event()
        self.meeting = threading.Barrier(2)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def archive(self, behaviour: str, slow: bool = False) -> Source:
        file = RemoteFile(self.url(f"{behaviour}/archive"), CIFAR10.filename, f"md5:{md5(ARCHIVE)}")
        return Source(behaviour, "archive", (file,), slow)

    def parquet(self, train: str = "good", test: str = "good") -> Source:
        files = tuple(
            RemoteFile(self.url(path), name, f"sha256:{hashlib.sha256(content).hexdigest()}")
            for path, name, content in (
                (f"{train}/train", "train.parquet", TRAIN),
                (f"{test}/test", "test.parquet", TEST),
            )
        )
        return Source("parquet", "parquet", files)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests[self.path.strip("/")] += 1
        behaviour, name = self.path.strip("/").split("/")
        content = self.server.contents[name]
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
            return
        if behaviour == "html":
            content = b"<!DOCTYPE html><title>Please sign in</title>"
        if behaviour == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if behaviour == "meet":
            self.server.meeting.wait(5)
        self.send_response(200)
        if behaviour != "lengthless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        if behaviour == "cut":
            content = content[:half]
        if behaviour == "stall":
            self.wfile.write(content[:half])
            self.server.over.wait(10)
        elif behaviour in ("crawl", "tire"):
            if behaviour == "tire":
                self.wfile.write(content[:half])
                content = content[half:]
            piece = 400  # bytes, each STEP: 20 kB/s
            try:
                for start in range(0, len(content), piece):
                    self.wfile.write(content[start : start + piece])
                    time.sleep(STEP)
            except OSError:
                pass  # the client has left, as it should
        else:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def mirrors(monkeypatch):
    """The server; torchvision expects the small dataset while it runs."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sums = [[Path(name).name, md5(content)] for name, content in FILES.items()]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]}
    )
    with Mirrors() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def fill(cache: Path, *sources: Source) -> Path:
    return download.cifar10(cache, sources, PATIENCE)


def assert_torchvision_loads(root: Path) -> None:
    for train, batches in ((True, range(5)), (False, [5])):
        expected = [pickle.loads(list(FILES.values())[index])["data"] for index in batches]
        dataset = CIFAR10(root, train=train, download=False)
        assert np.array_equal(dataset.data.transpose(0, 3, 1, 2).reshape(-1, 3072), np.concatenate(expected))


def leftovers(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))


def test_published_sources():
    *mirrors, official = SOURCES
    assert (
        official.slow and official.files[0].url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    )
    assert not any(mirror.slow for mirror in mirrors)
    assert [source.layout for source in SOURCES] == ["archive", "archive", "parquet", "archive"]
    for source in SOURCES:
        for file in source.files:
            algorithm, _, digest = file.known_hash.partition(":")
            assert file.url.startswith("https://")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
            if source.layout == "archive":
                assert (file.name, digest) == ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")


def test_default_cache_is_the_users_cache_folder(mirrors, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_torchvision_loads(download.cifar10(sources=[mirrors.archive("good")]))
    assert tmp_path in download.default_cache().parents


@pytest.mark.parametrize("behaviour", ["good", "moved", "lengthless"])
def test_archive(mirrors, tmp_path, capsys, behaviour):
    cache = tmp_path / "new" / "cache"
    assert fill(cache, mirrors.archive(behaviour)) == cache
    assert_torchvision_loads(cache)
    assert leftovers(cache) == sorted([*FILES, "cifar-10-batches-py", "cifar-10-python.tar.gz"])
    assert capsys.readouterr().out == ""


def test_pooch_is_quiet(mirrors, tmp_path, caplog, monkeypatch):
    logger = pooch.get_logger()
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    fill(tmp_path, mirrors.parquet())
    assert caplog.records == []


@pytest.mark.parametrize("total", [len(ARCHIVE), 0])
def test_bar_counts_the_files_bytes(total):
    """As pooch drives it: whole chunks, then once more the total; 0 when the server names no length."""
    watch = download._RateWatch("bar", floor=0, window=15)
    watch.total = total
    chunks = -(-len(ARCHIVE) // 1024)
    for _ in range(chunks):
        watch.update(1024)
    watch.reset()
    watch.update(total)
    assert watch.bar.n == (total or chunks * 1024)
    watch.close()


def test_parquet(mirrors, tmp_path):
    folder = fill(tmp_path, mirrors.parquet())
    assert folder == tmp_path / PARQUET_FOLDER
    assert (folder / "train.parquet").read_bytes() == TRAIN
    assert (folder / "test.parquet").read_bytes() == TEST
    assert leftovers(folder) == ["test.parquet", "train.parquet"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
        ("html", "wrong bytes: the checksum differs"),
        ("wrong", "wrong bytes: the checksum differs"),
        ("cut", "connection cut"),
        ("stall", "Read timed out."),
        ("crawl", "kB/s"),
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
        hash_ = mirrors.archive("good").files[0].known_hash
        urls = {
            "refused": f"http://127.0.0.1:{unused.getsockname()[1]}/x",
            "unknown": "http://no.such.invalid/x",
        }
        sources = [
            Source(name, "archive", (RemoteFile(url, CIFAR10.filename, hash_),)) for name, url in urls.items()
        ]
        with pytest.raises(UserError, match=r"refused failed \(.*[Rr]efused\)\n  unknown failed \(.+\)\n"):
            fill(tmp_path, *sources)
        assert_torchvision_loads(fill(tmp_path, *sources, mirrors.archive("good")))


def test_slow_source_may_crawl(mirrors, tmp_path):
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("tire", slow=True)))


def test_parquet_needs_both_files(mirrors, tmp_path):
    with pytest.raises(UserError, match="HTTP 404"):
        fill(tmp_path, mirrors.parquet(test="missing"))
    assert fill(tmp_path, mirrors.parquet(test="missing"), mirrors.archive("good")) == tmp_path
    assert (
        fill(tmp_path / "other", mirrors.parquet(train="wrong"), mirrors.archive("good"))
        == tmp_path / "other"
    )


def test_all_fail(mirrors, tmp_path, capsys):
    with pytest.raises(UserError) as caught:
        fill(tmp_path, mirrors.archive("missing"), mirrors.parquet(train="html"), mirrors.archive("cut"))
    assert str(caught.value).splitlines() == [
        "CIFAR-10 could not be downloaded:",
        "  missing failed (HTTP 404)",
        "  parquet failed (wrong bytes: the checksum differs)",
        "  cut failed (connection cut)",
        f"Download cifar-10-python.tar.gz by other means and put it into {tmp_path}, or name a folder that "
        "holds CIFAR-10 with --data-dir or CIFAR10_DIR, or use --dataset digits.",
    ]
    assert capsys.readouterr().out.count("trying the next") == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("layout", ["archive", "parquet"])
def test_second_call_stays_off_the_network(mirrors, tmp_path, layout):
    wanted = mirrors.archive("good") if layout == "archive" else mirrors.parquet()
    folder = fill(tmp_path, wanted)
    requests, files = mirrors.requests.copy(), leftovers(tmp_path)
    assert fill(tmp_path, mirrors.archive("wrong"), wanted) == folder
    assert (mirrors.requests, leftovers(tmp_path)) == (requests, files)


def test_archive_put_there_by_hand(mirrors, tmp_path):
    (tmp_path / CIFAR10.filename).write_bytes(ARCHIVE)
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("missing")))
    assert mirrors.requests.total() == 0


@pytest.mark.parametrize("damage", ["flip", "remove"])
@pytest.mark.parametrize("keep_archive", [True, False])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
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


def test_damaged_parquet_is_fetched_again(mirrors, tmp_path):
    folder = fill(tmp_path, mirrors.parquet())
    (folder / "test.parquet").write_bytes(TEST[:-1] + b"?")
    assert fill(tmp_path, mirrors.parquet()) == folder
    assert (folder / "test.parquet").read_bytes() == TEST
    assert mirrors.requests == {"good/train": 1, "good/test": 2}


def test_damaged_batches_do_not_hide_parquet(mirrors, tmp_path):
    fill(tmp_path, mirrors.archive("good"))
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").unlink()
    assert fill(tmp_path, mirrors.parquet()) == tmp_path / PARQUET_FOLDER


@pytest.mark.parametrize("moves", range(len(FILES)))
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


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize("way", ["dots", "absolute", "link"])
def test_hostile_archive_writes_nothing_outside(mirrors, tmp_path, way):
    """Even one with the expected checksum."""
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    members = {
        "dots": [("../../outside", b"evil")],
        "absolute": [(str(outside), b"evil")],
        "link": [
            (link("cifar-10-batches-py/data_batch_1", str(outside)), b""),
            ("cifar-10-batches-py/data_batch_1", b"evil"),
        ],
    }[way]
    mirrors.contents["archive"] = tar_gz(members)
    file = RemoteFile(
        mirrors.url("good/archive"), CIFAR10.filename, f"md5:{md5(mirrors.contents['archive'])}"
    )
    with pytest.raises(UserError, match="archive"):
        fill(cache, Source("hostile", "archive", (file,)))
    assert not outside.exists()
    assert leftovers(cache) == ["cifar-10-python.tar.gz"]


def test_archive_with_a_wrong_batch_is_not_trusted(mirrors, tmp_path):
    files = {**FILES, "cifar-10-batches-py/data_batch_5": b"not this"}
    mirrors.contents["archive"] = tar_gz(list(files.items()))
    file = RemoteFile(
        mirrors.url("good/archive"), CIFAR10.filename, f"md5:{md5(mirrors.contents['archive'])}"
    )
    with pytest.raises(UserError, match="the archive lacks a file or holds a wrong one"):
        fill(tmp_path, Source("stranger", "archive", (file,)))
    assert leftovers(tmp_path) == ["cifar-10-python.tar.gz"]


def test_two_at_once(mirrors, tmp_path):
    """The server answers neither before both have asked."""
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fill, tmp_path, mirrors.archive("meet")) for _ in range(2)]
    assert [call.result() for call in calls] == [tmp_path, tmp_path]
    assert mirrors.requests["meet/archive"] == 2
    assert_torchvision_loads(tmp_path)
    assert leftovers(tmp_path) == sorted([*FILES, "cifar-10-batches-py", "cifar-10-python.tar.gz"])


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
