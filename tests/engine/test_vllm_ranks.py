"""How weights reach the ranks of an engine, with ranks of the test's own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from evoswarm.engine.errors import EngineDied
from evoswarm.engine.vllm_ranks import Ranks, received
from evoswarm.weights.tensorfile import TensorFile

WEIGHTS = {"a": np.arange(6.0).reshape(2, 3).astype(ml_dtypes.bfloat16), "b": np.asarray([7.0], np.float32)}


class Llm:
    """Two ranks, which may be on another node. vLLM pickles what it sends to a rank in another process."""

    def __init__(self, *, other_node: bool) -> None:
        self.other_node = other_node
        self.sent: Any = None
        self.seen: list[Any] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        if method == "evoswarm_opens":
            return [args[1] in TensorFile(args[0]).specs, not self.other_node]
        self.sent = args[0]
        self.seen = [received(pickle.loads(pickle.dumps(self.sent))) for _ in range(2)]
        return [None, None if method == "install" else "rank 1: no place"]


@pytest.mark.parametrize("other_node", [False, True])
def test_all_ranks_get_the_weights_and_those_of_one_node_only_a_path(other_node: bool) -> None:
    llm = Llm(other_node=other_node)
    ranks = Ranks(llm, in_process=False)
    assert ranks.call("install", WEIGHTS) is None
    for weights in llm.seen:
        assert all(weights[name].tobytes() == array.tobytes() for name, array in WEIGHTS.items())
        assert all(weights[name].dtype == array.dtype for name, array in WEIGHTS.items())
    assert isinstance(llm.sent, Path) is not other_node
    assert ranks.call("install", None) is None and llm.seen == [None, None]


def test_the_file_of_the_weights_is_gone_after_the_call() -> None:
    llm = Llm(other_node=False)
    Ranks(llm, in_process=False).call("install", WEIGHTS)
    assert isinstance(llm.sent, Path) and not llm.sent.exists()


def test_the_first_problem_of_a_rank_is_reported_and_a_rank_that_fails_ends_the_engine() -> None:
    assert Ranks(Llm(other_node=False), in_process=False).call("load", WEIGHTS) == "rank 1: no place"

    class Broken(Llm):
        def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
            raise RuntimeError("lost")

    with pytest.raises(EngineDied, match="engine vllm died: RuntimeError: lost"):
        Ranks(Broken(other_node=False), in_process=True).call("install", None)
