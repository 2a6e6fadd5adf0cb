"""The audit fails on a known vulnerability, passes without the service, and says which of them it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv", path=str(Path(sys.executable).parent))
LOCK = f"""
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "mine"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "jinja2" }}]

[package.metadata]
requires-dist = [{{ name = "jinja2" }}]

[[package]]
name = "jinja2"
version = "2.0"
source = {{ registry = "http://127.0.0.1:9/simple" }}
sdist = {{ url = "http://127.0.0.1:9/jinja2-2.0.tar.gz", hash = "sha256:{"0" * 64}" }}
"""
PYPROJECT = '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["jinja2"]\n'
BUG = {"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z"}
pytestmark = pytest.mark.skipif(UV is None, reason="uv is not beside this Python")


class Service(BaseHTTPRequestHandler):
    """Answers as OSV does: which bugs each package has, and what a bug is."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        old = [query["package"]["name"] == "jinja2" and query["version"] == "2.0" for query in asked]
        self.answer({"results": [{"vulns": [BUG]} if bad else {} for bad in old]})

    def do_GET(self) -> None:
        self.answer(BUG | {"summary": "it is too old", "affected": []})

    def answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(folder: Path, url: str, lock: str = LOCK) -> tuple[int, str]:
    """Exit code and words of the audit of a project that needs Jinja 2.0."""
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "uv.lock").write_text(lock)
    command = [sys.executable, ROOT / "release/audit.py", str(UV), "--service-url", url]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout


def test_a_known_vulnerability_fails_with_its_name(service: str, tmp_path: Path) -> None:
    code, said = audit(tmp_path, service)
    assert code == 1
    assert "jinja2 2.0 has 1 known vulnerability" in said
    assert "PYSEC-1: it is too old" in said


def test_packages_without_one_pass(service: str, tmp_path: Path) -> None:
    code, said = audit(tmp_path, service, LOCK.replace("2.0", "3.9"))
    assert (code, "no known vulnerabilities" in said) == (0, True), said


def test_without_the_service_it_passes_and_says_so_in_one_line(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "http://127.0.0.1:9")
    assert code == 0
    assert said.startswith("audit: not done, the service of known vulnerabilities was not reached (")
    assert said.count("\n") == 1


def test_a_lock_that_cannot_be_read_fails(service: str, tmp_path: Path) -> None:
    code, said = audit(tmp_path, service, "nonsense")
    assert code == 2
    assert "uv.lock" in said
