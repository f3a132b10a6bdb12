"""Runs and pools at URLs of a real S3 server end in the same bytes as local ones, whatever fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from echo import echo_config, make_expert, result_bytes
from proxy import proxy
from storage_helpers import SEARCH, config_of

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig, dump_config
from evoswarm.errors import Stopped, UserError
from evoswarm.rows import NoiseVector, Row
from evoswarm.storage import lease
from evoswarm.storage.cache import cached_folder, local_copy
from evoswarm.storage.remote import Remote, StorageError


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes that every run below must end with."""
    config = echo_config(tmp_path_factory.mktemp("home"), SEARCH)
    evoswarm.run(config)
    return result_bytes(config.run_dir)


def upload(folder: Path, url: str) -> None:
    remote = Remote(url)
    for path in folder.rglob("*"):
        if path.is_file():
            remote.put(path, str(path.relative_to(folder)))


def bytes_at(config: RunConfig) -> dict[str, bytes]:
    """What a reader on a machine that knows nothing finds at the URL."""
    shutil.rmtree(Path(os.environ["EVOSWARM_CACHE"]) / "copies", ignore_errors=True)
    assert config.place.url is not None
    return result_bytes(local_copy(config.place.url))


class StopAfter:
    """Callbacks that stop a run after a generation."""

    def __init__(self, generation: int) -> None:
        self.seen, self.generation, self.texts = -1, generation, list[str]()

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(notify=self.notify, stop=lambda: self.seen >= self.generation)

    def notify(self, event: dict) -> None:
        if event["kind"] == "generation":
            self.seen = event["generation"]
        if event["kind"] in ("message", "warning"):
            self.texts.append(event["text"])


def test_a_run_whose_pool_and_output_are_urls_ends_like_a_local_run(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes]
) -> None:
    echo_config(tmp_path)
    upload(tmp_path / "experts", f"{bucket}/pool")
    config = config_of(tmp_path, bucket, f"pool.experts={bucket}/pool")
    summary = evoswarm.run(config)
    assert summary["run_dir"] == f"{bucket}/runs/echo"
    assert bytes_at(config) == at_home
    names = set(Remote(f"{bucket}/runs/echo").stamps())
    assert "lease.json" not in names and "lock" not in names and not any("partial" in name for name in names)
    secret = b"planted-secret-0123456789"
    assert not any(secret in path.read_bytes() for path in (tmp_path / "machine-a").rglob("*") if path.is_file())


def test_another_machine_continues_with_a_stopped_run(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes], use: Callable[..., None], server: object
) -> None:
    config = config_of(tmp_path, bucket)
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=StopAfter(2).callbacks)
    use(server.port, tmp_path / "machine-b")
    second = StopAfter(99)
    evoswarm.run(config, callbacks=second.callbacks)
    assert "resuming after generation 2" in second.texts
    assert bytes_at(config) == at_home


@pytest.mark.parametrize("puts", [6, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 8, 9, 13))])
def test_a_crash_at_any_upload_leaves_what_another_machine_can_resume_from(
    tmp_path: Path,
    bucket: str,
    at_home: dict[str, bytes],
    use: Callable[..., None],
    server: object,
    monkeypatch: pytest.MonkeyPatch,
    puts: int,
) -> None:
    config = config_of(tmp_path, bucket, "storage_seconds=0")
    whole, count = Remote.put, 0

    def crash(self: Remote, path: Path, name: str) -> None:
        nonlocal count
        count += 1
        if count > puts:
            raise StorageError("gone")
        whole(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "put", crash)
        with pytest.raises(UserError, match="gone"):
            evoswarm.run(config)
    use(server.port, tmp_path / "machine-b")
    evoswarm.run(config)
    assert bytes_at(config) == at_home


def test_a_killed_run_is_taken_over_at_once_on_its_own_machine(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes]
) -> None:
    config = config_of(tmp_path, bucket, "engine.delay=0.05")
    (tmp_path / "remote.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "evoswarm", "run", str(tmp_path / "remote.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    remote, deadline = Remote(str(config.place)), time.monotonic() + 240
    while "checkpoints/gen_0001.safetensors" not in remote.stamps():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lease.Lease.name in remote.stamps()
    evoswarm.run(config)
    assert bytes_at(config) == at_home


def test_a_run_waits_for_unavailable_storage_and_continues(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes], use: Callable[..., None], server: object
) -> None:
    closed = threading.Event()
    with proxy(server.port, closed=closed) as port:
        use(port, tmp_path / "machine-a")
        config = config_of(tmp_path, bucket, "storage_seconds=120")
        watch = StopAfter(99)

        def notify(event: dict) -> None:
            watch.notify(event)
            if event["kind"] == "generation" and event["generation"] == 2:
                closed.set()
            if "the run pauses" in event.get("text", ""):
                threading.Timer(1.0, closed.clear).start()

        evoswarm.run(config, callbacks=Callbacks(notify=notify))
    use(server.port, tmp_path / "machine-b")
    assert any("storage does not answer" in text and "the run pauses and retries" in text for text in watch.texts)
    assert any("storage is reachable again" in text for text in watch.texts)
    assert bytes_at(config) == at_home


def test_a_run_stops_resumably_if_storage_stays_unavailable(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes], use: Callable[..., None], server: object
) -> None:
    closed = threading.Event()
    with proxy(server.port, closed=closed) as port:
        use(port, tmp_path / "machine-a")
        config = config_of(tmp_path, bucket, "storage_seconds=1")

        def notify(event: dict) -> None:
            if event["kind"] == "generation" and event["generation"] == 2:
                closed.set()

        with pytest.raises(UserError) as error:
            evoswarm.run(config, callbacks=Callbacks(notify=notify))
        assert f"evoswarm resume {config.place.url}" in str(error.value) and "\n" not in str(error.value)
        closed.clear()
        again = StopAfter(99)
        evoswarm.run(config, callbacks=again.callbacks)
    use(server.port, tmp_path / "machine-b")
    assert any("has more of this run" in text for text in again.texts)
    assert "resuming after generation 3" in again.texts
    assert bytes_at(config) == at_home


def test_what_is_wrong_with_a_place_is_one_line(
    tmp_path: Path, bucket: str, servers: Callable[..., object], use: Callable[..., None], server: object
) -> None:
    def refused(config: RunConfig) -> str:
        with pytest.raises(UserError) as error:
            evoswarm.run(config)
        assert "\n" not in str(error.value) and "planted-secret" not in str(error.value)
        return str(error.value)

    assert "there is no such bucket" in refused(config_of(tmp_path, "s3://nobody-has-this"))
    assert "is not a known kind of storage" in refused(config_of(tmp_path, "nosuch://x"))
    assert "has no folders with files" in refused(config_of(tmp_path, bucket, f"pool={bucket}/nothing"))
    for text in ("s3://key:hunter2@bucket/runs", "s3://bucket/runs?secret=hunter2"):
        with pytest.raises(UserError, match="output holds a secret|must not contain credentials") as error:
            config_of(tmp_path, text)
        assert "hunter2" not in str(error.value)
    with pytest.raises(UserError, match="holds a secret") as error:
        config_of(tmp_path, bucket, "engine={type: vllm, args: {hf_token: hunter2}}")
    assert "hunter2" not in str(error.value)
    strict = servers(INITIAL_NO_AUTH_ACTION_COUNT="1")
    strict.make_bucket("closed")
    use(strict.port, tmp_path / "machine-a")
    line = refused(config_of(tmp_path, "s3://closed"))
    assert "s3://closed/runs/echo: permission denied; check AWS_ACCESS_KEY_ID" in line
    use(1, tmp_path / "machine-a")
    assert "storage does not answer" in refused(config_of(tmp_path, bucket))


def test_an_expert_is_downloaded_once_for_a_node_and_kept_by_its_content(
    tmp_path: Path, bucket: str, server: object
) -> None:
    make_expert(tmp_path / "e0", 0)
    upload(tmp_path / "e0", f"{bucket}/pool/e0")
    upload(tmp_path / "e0", f"{bucket}/same")
    command = [
        sys.executable,
        "-c",
        f"from evoswarm.storage.cache import cached_folder; print(cached_folder('{bucket}/pool/e0'))",
    ]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: subprocess.check_output(command, text=True).strip(), range(3)))
    assert len(set(found)) == 1 and Path(found[0]).parent == tmp_path / "machine-a/experts"
    gets = re.findall(rf"GET /{bucket.removeprefix('s3://')}/pool/e0/adapter_model.safetensors", server.log.read_text())
    assert len(gets) == 1, gets
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (Path(found[0]) / name).read_bytes() == (tmp_path / "e0" / name).read_bytes()
    assert str(cached_folder(f"{bucket}/same")) == found[0]
    (tmp_path / "e0/adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    upload(tmp_path / "e0", f"{bucket}/pool/e0")
    assert str(cached_folder(f"{bucket}/pool/e0")) != found[0]


def test_a_particle_on_another_node_hands_over_what_it_writes_and_finds_what_others_wrote(
    tmp_path: Path, bucket: str, use: Callable[..., None], server: object
) -> None:
    from evoswarm.backend.ray.particle import Particle
    from evoswarm.rows import ExpertVector, SavedVector

    config = config_of(tmp_path, bucket)
    noise = Row(((NoiseVector(1, 2, 3, 0.5, 0.1), 1.0),))
    path = "basis/gen_0001/000.safetensors"
    Particle(config, config.place, 0).save_vector(noise, Path(path))
    use(server.port, tmp_path / "machine-b")
    saved = Row(((ExpertVector("e1"), 0.5), (SavedVector(path), 1.0)))
    drawn = Row(((ExpertVector("e1"), 0.5), *noise.terms))
    other = Particle(config, config.place, 1)
    (from_storage, _), (from_seed, _) = other.move(saved), Particle(config, config.place, 2).move(drawn)
    assert all((from_storage.arrays[name] == array).all() for name, array in from_seed.arrays.items())
    other.save_expert(saved, Path("best"))
    assert "best/adapter_model.safetensors" in Remote(str(config.place)).stamps()


def test_commands_that_read_a_run_take_its_url(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    from evoswarm.cli.main import app

    config = config_of(tmp_path, bucket)
    (tmp_path / "remote.yaml").write_text(dump_config(config))

    def command(*arguments: str) -> str:
        app(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=StopAfter(1).callbacks)
    url = str(config.place)
    assert f"{url}: stopped, generation 1/5" in command("status", url)
    assert json.loads(command("resume", url, "--json"))["generations"] == 5
    assert bytes_at(config) == at_home
    assert json.loads(command("status", url, "--json"))["state"] == "finished"
    assert command("report", url).strip() == f"{url}/report.html"
    assert b"<html" in (Remote(url).read("report.html") or b"")
    command("materialize", url, "-o", str(tmp_path / "made"))
    command("export", url, "-o", str(tmp_path / "exported"))
    best = at_home["best/adapter_model.safetensors"]
    assert all((tmp_path / name / "adapter_model.safetensors").read_bytes() == best for name in ("made", "exported"))
    by_url = command("evaluate", str(tmp_path / "remote.yaml"), "--adapter", f"{url}/best", "--json")
    evaluated = command("evaluate", str(tmp_path / "remote.yaml"), "--recipe", f"{url}/recipe.json", "--json")
    assert json.loads(evaluated)["utility"] == json.loads(by_url)["utility"] > 0
    upload(tmp_path / "experts", f"{bucket}/pool")
    assert len(json.loads(command("inspect", f"{bucket}/pool", "--json"))["experts"]) == 6


@pytest.mark.slow
def test_on_ray_a_killed_coordinator_continues_with_its_url(
    tmp_path: Path, bucket: str, at_home: dict[str, bytes]
) -> None:
    config = config_of(tmp_path, bucket, "engine.delay=0.2", "backend={type: ray, scorers: 2}")
    (tmp_path / "remote.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "evoswarm", "run", str(tmp_path / "remote.yaml"), "--json"]
    environment = os.environ | {"RAY_ADDRESS": "local"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    remote, deadline = Remote(str(config.place)), time.monotonic() + 240
    while "checkpoints/gen_0001.safetensors" not in remote.stamps():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    (coordinator,) = [p for p in family if (p.cmdline() or [""])[0].startswith("ray::Coordinator")]
    coordinator.kill()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["run_dir"] == config.place.url
    assert bytes_at(config) == at_home
    assert "report.html" in remote.stamps() and lease.Lease.name not in remote.stamps()


def test_a_place_of_another_kind_works_too(tmp_path: Path, at_home: dict[str, bytes]) -> None:
    """fsspec's own `local://`, which writes aside and moves."""
    os.environ.setdefault("EVOSWARM_CACHE", str(tmp_path / "cache"))
    url = f"local://{tmp_path}/there"
    config = echo_config(tmp_path / "w", SEARCH, f"output={url}")
    evoswarm.run(config)
    assert result_bytes(tmp_path / "there/echo") == at_home


def test_a_file_url_of_a_run_is_its_folder(tmp_path: Path) -> None:
    assert local_copy(f"file://{tmp_path}/my runs/r") == tmp_path / "my runs" / "r"
