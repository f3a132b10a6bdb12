"""The processes that a vLLM engine is split over, and how weights reach them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.engine.errors import dies_on_error
from evoswarm.weights.tensorfile import TensorFile, shared_file
from evoswarm.weights.wire import Packed, pack, unpack

Weights = Mapping[str, np.ndarray]
Sent = Weights | Path | Packed | None
"""Weights in this process, in a file that all ranks can open, or as they are sent to ranks on other nodes."""


class Ranks:
    """Calls all ranks of an engine.

    In this process a rank gets the arrays themselves. Ranks of the same node open one file in shared memory and read
    only the parts of it that they hold. Only ranks on several nodes are sent all weights.
    """

    def __init__(self, llm: Any, *, in_process: bool) -> None:
        """`llm` is vLLM's `LLM`. `in_process`: there is one rank, in this process."""
        self._llm, self._in_process = llm, in_process
        self._one_node = in_process or self._open_files()

    def call(self, method: str, weights: Weights | None, *arguments: Any) -> str | None:
        """What is wrong with the weights according to the first rank that reports something.

        Raises:
            EngineDied: a rank failed.
        """
        with dies_on_error("vllm"), self._sent(weights) as sent:
            problems = self._llm.collective_rpc(method, args=(sent, *arguments))
        return next((problem for problem in problems if problem is not None), None)

    @contextmanager
    def _sent(self, weights: Weights | None) -> Iterator[Sent]:
        if weights is None or self._in_process:
            yield weights
        elif self._one_node:
            with shared_file(weights) as path:
                yield path
        else:
            yield pack(dict(weights))

    def _open_files(self) -> bool:
        """Whether all ranks can open files of this process: on another node the path is nothing, or something else."""
        mark = secrets.token_hex(16)
        with shared_file({mark: np.zeros(1, np.float32)}) as path:
            return all(self._llm.collective_rpc("evoswarm_opens", args=(path, mark)))


def received(sent: Sent) -> Weights | None:
    """The weights that a rank was sent; those of a file are views of it."""
    if isinstance(sent, Path):
        return TensorFile(sent).arrays()
    return unpack(sent) if isinstance(sent, Packed) else sent
