"""vLLM's own OpenAI-compatible server as a child process, on a port that only this machine can reach."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from evoswarm.config import RunConfig
from evoswarm.engine import VllmEngine
from evoswarm.engine.combined.settings import combining, longest_of
from evoswarm.engine.config import ModelEngine
from evoswarm.engine.vllm_settings import arguments
from evoswarm.errors import UserError
from evoswarm.loop.history import run_pool
from evoswarm.place import replacing_folder
from evoswarm.serve.combined import CombinedOffer
from evoswarm.serve.offer import Offer, slot_rank
from evoswarm.serve.winner import serving
from evoswarm.utility import make_utility
from evoswarm.utility.config import Task

START_SECONDS = 1800
"""How long vLLM may take to load a model and to compile it."""
MODULE = "vllm.entrypoints.openai.api_server"


class VllmServer:
    """vLLM's server of one offer. It ends with this process, also if that is killed."""

    def __init__(self, offer: Offer, *, most_rank: int | None = None, options: Sequence[str] = ()) -> None:
        """Nothing is started yet.

        Args:
            offer: the models.
            most_rank: the highest rank of particles that are loaded later.
            options: of vLLM's own server; the last one of a name counts.

        Raises:
            UserError: vLLM is missing or cannot serve them.
        """
        self.key = secrets.token_hex(16)
        self.log = Path(tempfile.gettempdir()) / f"evoswarm-serve-{os.getpid()}.log"
        self._offer, self._arguments = offer, [*_flags(_arguments(offer, most_rank)), *options]
        self._threads = _engine(offer.config).threads
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start the process, and return when it answers.

        Raises:
            UserError: it ended, or does not answer in time.
        """
        self.stop()  # the rest of a server that died
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", MODULE, "--host", "127.0.0.1", "--port", str(port), *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=_end_with_parent,
                process_group=0,
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.alive:
                raise UserError(f"vLLM cannot serve {self._offer.model}: {self._last_error()}; see {self.log}")
            if time.monotonic() > end:
                self.stop()
                raise UserError(f"vLLM did not start within {START_SECONDS} s; see {self.log}")
            time.sleep(0.2)

    @property
    def _environment(self) -> dict[str, str]:
        from evoswarm.engine.vllm_internals import environment

        needed = {
            "VLLM_API_KEY": self.key,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",  # a server needs it
        }
        return environment(threads=self._threads) | os.environ | needed

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the process and its children; those of a process that was killed do not end by themselves."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _last_error(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.strip() for line in lines if "Error:" in line or "error:" in line]
        return errors[-1].rpartition("] ")[2] if errors else "it ended"


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _end_with_parent() -> None:
    """Linux ends this process when its parent dies (prctl 1: PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _engine(config: RunConfig) -> VllmEngine:
    """The run's settings of vLLM; of another engine, those that vLLM has too."""
    engine = config.engine
    if isinstance(engine, VllmEngine):
        return engine
    assert isinstance(engine, ModelEngine)
    return VllmEngine(dtype=engine.dtype, threads=engine.threads, trust_remote_code=engine.trust_remote_code)


def _arguments(offer: Offer, most_rank: int | None) -> dict[str, Any]:
    config = offer.config
    found = arguments(_engine(config).merged(), model=offer.model, adapter=None)
    found |= {"served_model_name": offer.model_name, "tokenizer": str(_tokenizer(offer))}
    if isinstance(config.utility, Task):
        prompt = config.utility.prompt
        if isinstance(prompt.chat_template, Path):
            found["chat_template"] = str(prompt.chat_template)
        if prompt.chat_template_kwargs:
            found["default_chat_template_kwargs"] = json.dumps(prompt.chat_template_kwargs)
    if isinstance(offer, CombinedOffer):
        found |= _together(offer)
    if offer.adapters:
        found |= {
            "enable_lora": True,
            "max_loras": len(offer.adapters) + 1,  # and one particle that is asked for by name
            "max_lora_rank": slot_rank(offer, most_rank),
            "lora_modules": [
                json.dumps({"name": name, "path": str(folder.resolve())}) for name, folder in offer.adapters.items()
            ],
        }
    return found


def _together(offer: CombinedOffer) -> dict[str, Any]:
    """What vLLM needs for the other models of a combination."""
    settings = _engine(offer.config)
    found = combining(offer.combination, settings) | {"served_model_name": offer.names}
    longest = longest_of(offer.combination.members, trust_remote_code=settings.trust_remote_code)
    return found | ({"max_model_len": min(longest, settings.max_length or longest)} if longest else {})


def _tokenizer(offer: Offer) -> Path:
    """The run's tokenizer with its chat template, which may be that of the experts."""
    config, folder = offer.config, serving(offer.run_dir) / "tokenizer"
    utility = make_utility(config.utility, root=config.root)
    found = config.engine.tokenizer(model=config.model, experts=run_pool(config).experts, utility=utility)
    assert found is not None
    with replacing_folder(folder) as new:  # settings may have changed since the last time
        found.tokenizer.save_pretrained(new)
    return folder


def _flags(found: Mapping[str, Any]) -> list[str]:
    """Arguments of vLLM's engine as flags of its command."""

    def flags() -> Iterator[str]:
        for name, value in found.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                yield f"--{flag}" if value else f"--no-{flag}"
            elif isinstance(value, dict):
                yield from (f"--{flag}", json.dumps(value))
            elif isinstance(value, list):
                yield from (f"--{flag}", *map(str, value))
            elif value is not None:
                yield from (f"--{flag}", str(value))

    return list(flags())
