"""What a user may get wrong about a cluster: one line each, status 2."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from echo import echo_config
from head import Head, free_port
from proxy import make_certificate, proxy

from evoswarm.config import dump_config


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "it.yaml").write_text(dump_config(echo_config(tmp_path, "backend={type: ray}")))
    return tmp_path / "it.yaml"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_a_wrong_address_is_one_line(head: Head, config: Path) -> None:
    for address, words in {
        f"http://127.0.0.1:{free_port()}": "Connection refused",
        f"ray://{head.address}": "give the dashboard's",
        head.address: "give the dashboard's",
        f"http://127.0.0.1:{port_of(head.address)}": "does not answer like Ray",
        f"http://127.0.0.1:{head.metrics}": "does not answer like Ray",
        "http://[x": "give the dashboard's",
        "http://user:hidden@127.0.0.1:1": "give the dashboard's",
    }.items():
        line = refused(head.evoswarm("submit", config, "--address", address))
        assert words in line and "hidden" not in line, line
    assert "give --address" in refused(head.evoswarm("list", RAY_API_SERVER_ADDRESS=""))


TOKENS = {
    "wrong": ({"RAY_AUTH_TOKEN": "wrong" * 8}, "does not accept the token in RAY_AUTH_TOKEN"),
    "off": ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled sends none"),
    "no file": ({"RAY_AUTH_TOKEN_PATH": "/no/token"}, "the file /no/token (RAY_AUTH_TOKEN_PATH) is missing"),
    "missing": ({"RAY_AUTH_TOKEN_PATH": "", "HOME": "/no/home"}, "none was sent"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.slow] if name in ("off", "wrong") else []) for name in TOKENS]
)
def test_a_wrong_and_a_missing_token_are_distinguished(head: Head, config: Path, case: str) -> None:
    changes, problem = TOKENS[case]
    assert problem in refused(head.evoswarm("submit", config, **changes))
    run = ("run", config, "--set", f"backend.address={head.address}")
    line = refused(head.evoswarm(*run, **changes))
    assert problem in line and line.startswith(f"error: Ray at {head.address} cannot be used: it ")
    assert head.token not in line


EDIT_METADATA = """
import sys, ray
from ray._private import utils, worker
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
worker.check_version_info = utils.check_version_info = lambda *given, **named: None  # who edits it may join anyway
ray.init(sys.argv[1], log_to_driver=False)
before = _internal_kv_get("CLUSTER_METADATA", namespace=b"cluster")
if sys.argv[2]:
    _internal_kv_put("CLUSTER_METADATA", sys.argv[2].encode(), True, namespace=b"cluster")
print(before.decode())
"""


def test_a_head_on_another_version_is_named(head: Head, config: Path) -> None:
    def metadata(value: str) -> dict:
        """What the head says about its versions, before it is made to say `value`."""
        command = [sys.executable, "-c", EDIT_METADATA, head.address, value]
        done = subprocess.run(command, capture_output=True, text=True, env=head.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    before = metadata("")
    run = ("run", config, "--set", f"backend.address={head.address}")
    try:
        for changes, words in (
            ({"ray_version": "2.9.9"}, "Ray: 2.9.9"),
            ({"python_version": "3.8.1"}, "Python: 3.8.1"),
        ):
            metadata(json.dumps(before | changes))
            line = refused(head.evoswarm(*run))
            assert "Version mismatch" in line and words in line and "install the cluster's versions" in line
    finally:
        metadata(json.dumps(before))
    mine = version("ray")
    other = mine[:-1] + (
        "8" if mine[-1] == "9" else "9"
    )  # of the same length, because the proxy leaves the header as it is
    change = (f'"ray_version": "{mine}"'.encode(), f'"ray_version": "{other}"'.encode())
    with proxy(port_of(head.dashboard), change=change) as port:
        done = head.evoswarm("submit", config, "--address", f"http://127.0.0.1:{port}", "--set", "name=other")
    assert done.returncode == 0 and f"has Ray {other}, this machine {mine}" in done.stderr
    here = ".".join(platform.python_version_tuple()[:2])
    with proxy(port_of(head.dashboard), change=(f'"{here}.'.encode(), b'"9.99.')) as port:
        done = head.evoswarm("submit", config, "--address", f"http://127.0.0.1:{port}", "--set", "name=python")
    assert done.returncode == 0 and f"has Python 9.99, this machine {here}" in done.stderr


def test_https_needs_a_trusted_certificate(head: Head, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with proxy(port_of(head.dashboard), certificate=certificate) as port:
        address = f"https://127.0.0.1:{port}"
        assert "certificate is not trusted" in refused(head.evoswarm("list", "--address", address))
        done = head.evoswarm("list", "--address", address, "--ca-file", certificate, "--json")
        assert done.returncode == 0 and isinstance(json.loads(done.stdout), list)
    assert "no such file" in refused(head.evoswarm("list", "--ca-file", tmp_path / "none.pem"))


def test_what_is_wrong_with_a_config_shows_before_anything_is_sent(head: Head, config: Path) -> None:
    before = len(head.get("/api/jobs/"))
    assert "did you mean population?" in refused(head.evoswarm("submit", config, "--set", "search.poplation=3"))
    assert "set it to ray" in refused(head.evoswarm("submit", config, "--set", "backend={type: local}"))
    assert "pool" in refused(head.evoswarm("submit", config, "--set", f"pool={config.parent}"))
    assert len(head.get("/api/jobs/")) == before


def test_a_job_that_does_not_exist_is_named(head: Head) -> None:
    for command in ("status", "logs", "stop"):
        assert "has no job nobody" in refused(head.evoswarm(command, "nobody"))
