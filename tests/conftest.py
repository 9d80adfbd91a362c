"""For all tests: no network, no settings or caches from outside; the real CIFAR-10 where a test asks for it.

The real CIFAR-10 is found through the environment variable CIFAR10_DIR. Tests that need it are skipped where
that is not set; for all others it is as if it were not.

S9_LONG=1 runs the slow tests too, with ten times as many fuzz examples, different ones each time.
"""

import contextlib
import errno
import os
import random
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("fuzzing", "made_data", "mirrors", "networks", "small")

REPO = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # Threads of several processes would wait for each other's cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def long_tests() -> bool:
    """Whether the slow tests run too."""
    return os.environ.get("S9_LONG", "") not in ("", "0")


def free_port() -> int:
    """A port for a server of a test's own; not one that a connection to elsewhere may be given meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def pytest_configure():
    """Hypothesis draws the same examples each time, except in long tests."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    settings.register_profile(
        "s9", deadline=None, derandomize=not long_tests(), database=None, suppress_health_check=slow
    )
    settings.load_profile("s9")


def pytest_pycollect_makeitem(name, obj):
    """Of the assignment's names, `test` and `test_transform` are not tests."""
    return [] if name in ("test", "test_transform") else None


SWITCHED_OFF = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="session", autouse=True)
def outside(tmp_path_factory):
    """Keeps the outside out; gives the CIFAR10_DIR that was set there, or None.

    In this process and its forks any address but this machine's own cannot be reached, at once. Programs
    that a test starts are held back by a proxy that nobody listens at.
    """
    folder = os.environ.get("CIFAR10_DIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _refusing(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", _unresolving(socket.getaddrinfo))
        for name in PROXIES:
            patch.setenv(name, SWITCHED_OFF)
            patch.setenv(name.upper(), SWITCHED_OFF)
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "localhost,127.0.0.1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("CIFAR10_DIR", raising=False)
        yield folder


def _is_here(host) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    return name in ("", "localhost", "::1") or name.startswith("127.")


def _refusing(connect):
    def connect_here(self, address):
        if isinstance(address, tuple) and not _is_here(address[0]):
            raise OSError(errno.ENETUNREACH, f"tests are offline, and this is for {address}")
        return connect(self, address)

    return connect_here


def _unresolving(getaddrinfo):
    def resolve_here(host, *arguments, **options):
        if not _is_here(host):
            raise socket.gaierror(socket.EAI_NONAME, f"tests are offline, and this is for {host}")
        return getaddrinfo(host, *arguments, **options)

    return resolve_here


@pytest.fixture(scope="session")
def cifar10_folder(outside) -> Path:
    """The folder that holds the real CIFAR-10."""
    if not outside:
        pytest.skip("needs the real CIFAR-10: set CIFAR10_DIR to a folder that holds it")
    return Path(outside).absolute()


@pytest.fixture(scope="session")
def cifar10(cifar10_folder):
    """The real CIFAR-10, read once for all tests."""
    from s9.data.sources import load  # Here: it takes seconds that most test files can do without.

    return load("cifar10", cifar10_folder)


def program(command):
    """What a command calls itself."""
    name = command.__name__
    return f"python -m {name}" if "." in name else f"{name}.py"


@pytest.fixture
def refused(capsys):
    """refused(command, argument, ...): the one line that a refused command of a module prints."""

    def refuse(command, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command.main([str(argument) for argument in arguments])
        assert ended.value.code == 2
        printed, line = capsys.readouterr()
        assert printed == ""
        assert line.startswith(f"{program(command)}: error: ")
        assert line.count("\n") == 1
        return line

    return refuse


@pytest.fixture(autouse=True)
def small_numbers():
    """Training flushes denormal numbers to 0 in the whole process, and Hypothesis draws some."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def mirrors():
    """A server that plays mirrors of a small CIFAR-10, which torchvision expects while it runs."""
    from mirrors import serving

    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A working folder for random command lines."""
    from fuzzing import opened

    with opened(tmp_path_factory.mktemp("around")) as sandbox:
        yield sandbox


@pytest.fixture
def notebook(tmp_path):
    """A notebook that defines nothing."""
    from made_runs import make_notebook

    return make_notebook(tmp_path / "S9.ipynb", ["import model\n", "network = model.build('reference')"])


@pytest.fixture
def audited(tmp_path, notebook):
    """Audits what is given, the rest being good; gives the checks that are not met, by requirement."""
    from made_runs import make_run

    import dataset
    from model import S9Net
    from tools import audit

    def failures(network=None, transform=None, run=None, data=None, path=notebook):
        network = S9Net() if network is None else network
        transform = dataset.train_transform() if transform is None else transform
        run = make_run(tmp_path, network) if run is None else run
        checks = audit.audit(network, transform, run, data, path)
        assert len(checks) == 16
        assert all(check.measured and "\n" not in check.measured for check in checks)
        return {check.requirement: check.measured for check in checks if not check.met}

    return failures
