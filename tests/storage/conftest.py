"""A real S3-compatible server on loopback, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from head import free_port

from evoswarm.storage import lease, mirror

PATIENCE_SECONDS = 120
SERVER = shutil.which("moto_server") or shutil.which("moto_server", path=str(Path(sys.prefix) / "s3/bin"))


class Server:
    """A running server; `log` names every request."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port, self.log = free_port(), folder / f"s3-{len(list(folder.iterdir()))}.log"
        assert SERVER is not None
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [SERVER, "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "AWS_DEFAULT_REGION": "us-east-1"} | environment,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.2)

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT", data=b"")
        urllib.request.urlopen(request, timeout=20).close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers."""
    if SERVER is None:
        pytest.skip("there is no moto_server (the Makefile installs one)")
    folder, started = tmp_path_factory.mktemp("servers"), []

    def start(**environment: str) -> Server:
        started.append(Server(folder, **environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(servers: Callable[..., Server]) -> Server:
    """One that most tests share."""
    return servers()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Points this process at a server, as the machine whose cache is a folder."""

    def point(port: int, cache: Path) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-key-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-0123456789")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("EVOSWARM_CACHE", str(cache))

    return point


@pytest.fixture
def bucket(server: Server, use: Callable[..., None], tmp_path: Path) -> str:
    """A fresh bucket, as a URL; this process is the first machine."""
    name = f"b{time.time_ns()}"
    server.make_bucket(name)
    use(server.port, tmp_path / "machine-a")
    return f"s3://{name}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and pauses of a tenth."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.5)
    monkeypatch.setattr(lease, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(mirror, "FIRST_PAUSE", 0.1)
