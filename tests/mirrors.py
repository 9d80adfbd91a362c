"""A server on the loopback interface that plays good, bad and dying mirrors of a small CIFAR-10."""

import contextlib
import hashlib
import io
import pickle
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from s9.data import download
from s9.data.download import Patience, RemoteFile, Source

PATIENCE = Patience(timeout=0.5, floor=30_000, window=0.15, most=5_000_000)
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
        if behaviour == "loop":
            self.send_response(302)
            self.send_header("Location", f"/loop/{name}")
            self.end_headers()
            return
        if behaviour == "mute":
            self.server.over.wait(10)
            return
        if behaviour == "html":
            content = b"<!DOCTYPE html><title>Please sign in</title>"
        if behaviour == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if behaviour == "meet":
            self.server.meeting.wait(60)
        self.send_response(200)
        if behaviour not in ("lengthless", "endless"):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        if behaviour == "cut":
            content = content[:half]
        if behaviour == "stall":
            self.wfile.write(content[:half])
            self.server.over.wait(10)
        elif behaviour == "endless":
            with contextlib.suppress(OSError):  # until the client leaves
                while not self.server.over.is_set():
                    self.wfile.write(content)
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


def expect_the_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives torchvision the small data set's checksums."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sums = [[Path(name).name, md5(content)] for name, content in FILES.items()]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]}
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(CIFAR10, "meta", meta)


@contextlib.contextmanager
def serving() -> Iterator[Mirrors]:
    """The server; torchvision expects the small data set while it runs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        expect_the_small_one(monkeypatch)
        with Mirrors() as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            yield server
            server.over.set()
            server.shutdown()


def fill(cache: Path, *sources: Source, patience: Patience = PATIENCE) -> Path:
    return download.cifar10(cache, sources, patience)


def fill_as_a_process(cache: Path, source: Source) -> Path:
    """For a process of its own, which knows nothing of the small data set yet; it is in no hurry."""
    expect_the_small_one(pytest.MonkeyPatch())
    return fill(cache, source, patience=PATIENCE._replace(timeout=60))


def assert_torchvision_loads(root: Path) -> None:
    for train, batches in ((True, range(5)), (False, [5])):
        expected = [pickle.loads(list(FILES.values())[index])["data"] for index in batches]
        dataset = CIFAR10(root, train=train, download=False)
        assert np.array_equal(dataset.data.transpose(0, 3, 1, 2).reshape(-1, 3072), np.concatenate(expected))


def leftovers(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
