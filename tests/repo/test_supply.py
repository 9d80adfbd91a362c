"""The check for known vulnerabilities, against a list of them on this machine."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import supply

LEAK = {
    "id": "OSV-2026-1",
    "summary": "it leaks",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class Known(BaseHTTPRequestHandler):
    """Knows of one vulnerability, in a package called leaky."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"vulns": [LEAK]} if asked["package"]["name"] == "leaky" else {}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def known():
    server = HTTPServer(("127.0.0.1", 0), Known)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.fixture
def installed(tmp_path):
    """installed(name, ...): a folder with such packages, version 1.0 each."""

    def install(*names):
        for name in names:
            folder = tmp_path / "packages" / f"{name}-1.0.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
            )
        return tmp_path / "packages"

    return install


def check(tmp_path, url, folder):
    cache = ["--cache-dir", str(tmp_path / "cache"), "--timeout", "5"]
    return supply.main(["-s", "osv", "--osv-url", url, "--path", str(folder), *cache])


def test_a_known_vulnerability_fails_and_is_named(known, installed, tmp_path, capsys):
    assert check(tmp_path, known, installed("leaky", "tight")) == 1
    assert capsys.readouterr().out.splitlines() == [
        "leaky 1.0: OSV-2026-1, mended in 1.1",
        "2 of 2 packages looked up in the list of known vulnerabilities",
    ]


def test_what_nothing_is_known_of_passes(known, installed, tmp_path, capsys):
    assert check(tmp_path, known, installed("tight")) == 0
    assert capsys.readouterr().out == "1 of 1 packages looked up in the list of known vulnerabilities\n"


def test_where_the_list_cannot_be_reached_it_says_that_nothing_was_checked(installed, tmp_path, capsys):
    assert check(tmp_path, "http://127.0.0.1:9/v1/query", installed("tight")) == 0
    assert capsys.readouterr().out.startswith("NOT CHECKED: ")


def test_an_argument_that_pip_audit_refuses_fails(capsys):
    assert supply.main(["--no-such-option"]) == 1
    assert "pip-audit failed: " in capsys.readouterr().err
