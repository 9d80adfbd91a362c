"""download.py and its sources: good, bad and dying mirrors (mirrors.py)."""

import hashlib
import socket

import pytest
from mirrors import FILES, PATIENCE, assert_torchvision_loads, fill, leftovers
from torchvision.datasets import CIFAR10

from s9.data.download import SOURCES, RemoteFile, Source
from s9.errors import UserError


def test_published_sources():
    """The official host comes last, and only it may be slow; every archive is the one of torchvision."""
    assert [source.slow for source in SOURCES] == [False, False, False, True]
    for source in SOURCES:
        for file in source.files:
            algorithm, _, digest = file.known_hash.partition(":")
            assert file.url.startswith("https://")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
            assert source.layout == "parquet" or digest == "c58f30108f718f92721af3b95e74349a"


@pytest.mark.parametrize("behaviour", ["good", "moved", "lengthless"])
def test_archive(mirrors, tmp_path, capsys, behaviour):
    cache = tmp_path / "new" / "cache"
    assert fill(cache, mirrors.archive(behaviour)) == cache
    assert_torchvision_loads(cache)
    assert leftovers(cache) == sorted([*FILES, "cifar-10-batches-py", "cifar-10-python.tar.gz"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("missing", "HTTP 404"),
        ("html", "wrong bytes: the checksum differs"),
        ("wrong", "wrong bytes: the checksum differs"),
        ("cut", "connection cut"),
        ("stall", "Read timed out."),
        ("crawl", "kB/s"),
        ("loop", "Exceeded 30 redirects."),
        ("mute", "Read timed out."),
        ("endless", "more than 5 MB"),
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


def test_slow_source_may_crawl_down_to_a_hundredth(mirrors, tmp_path):
    """With no floor at all, a last resort that drips would be waited for without end."""
    assert_torchvision_loads(fill(tmp_path, mirrors.archive("tire", slow=True)))
    impatient = PATIENCE._replace(floor=100 * PATIENCE.floor)
    with pytest.raises(UserError, match="kB/s"):
        fill(tmp_path / "other", mirrors.archive("crawl", slow=True), patience=impatient)


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
