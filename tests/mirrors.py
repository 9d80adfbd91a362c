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
from s9.data.download import Source

MIN_RATE = 30_000.0
STEP = 0.02  # seconds between two pieces of a crawling answer


def batch_files() -> dict[str, bytes]:
    """CIFAR-10 in torchvision's layout with 4 random images per batch: paths under the root, contents."""
    random = np.random.default_rng(0)
    names = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    files = {
        name: {"data": random.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 1, 2, 3]} for name in names
    }
    files["batches.meta"] = {"label_names": [f"class {index}" for index in range(10)]}
    return {f"cifar-10-batches-py/{name}": pickle.dumps(content) for name, content in files.items()}


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


FILES = batch_files()
ARCHIVE = tar_gz({**FILES, "cifar-10-batches-py/readme.html": b"<html></html>"})


class Mirrors(ThreadingHTTPServer):
    """Behaves as the path says, and counts requests by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests = Counter()
        self.over = threading.Event()
        self.meeting = threading.Barrier(2)

    def archive(self, behaviour: str, min_rate: float = MIN_RATE) -> Source:
        return Source(behaviour, f"http://127.0.0.1:{self.server_port}/{behaviour}", min_rate)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        behaviour = self.path.strip("/")
        self.server.requests[behaviour] += 1
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour in ("moved", "loop"):
            self.send_response(302)
            self.send_header("Location", "/good" if behaviour == "moved" else "/loop")
            self.end_headers()
            return
        if behaviour == "mute":
            self.server.over.wait(10)
            return
        if behaviour == "meet":
            self.server.meeting.wait(60)
        content = ARCHIVE[:-1] + bytes([ARCHIVE[-1] ^ 1]) if behaviour == "wrong" else ARCHIVE
        self.send_response(200)
        if behaviour != "lengthless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if behaviour == "stall":
            self.server.over.wait(10)
        elif behaviour == "tire":
            piece = 400  # bytes, each STEP: 20 kB/s
            with contextlib.suppress(OSError):  # The client leaves, as it should.
                for start in range(half, len(content), piece):
                    self.wfile.write(content[start : start + piece])
                    time.sleep(STEP)
        elif behaviour != "cut":
            self.wfile.write(content[half:])

    def log_message(self, *_) -> None:
        pass


def expect_the_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives torchvision the small data set's checksums, and little patience to the download."""
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "WINDOW", 0.15)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sums = [[Path(name).name, md5(content)] for name, content in FILES.items()]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]}
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(ARCHIVE))
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


def fill(cache: Path, *sources: Source) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(download, "SOURCES", sources)
        return download.cifar10(cache)


def assert_torchvision_loads(root: Path) -> None:
    for train, batches in ((True, range(5)), (False, [5])):
        expected = [pickle.loads(list(FILES.values())[index])["data"] for index in batches]
        dataset = CIFAR10(root, train=train, download=False)
        assert np.array_equal(dataset.data.transpose(0, 3, 1, 2).reshape(-1, 3072), np.concatenate(expected))


def leftovers(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
