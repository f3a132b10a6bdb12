"""The model `router` of a server: what it offers, and which model answers a request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import SHAPE, finished_run
from starlette.testclient import TestClient
from test_serve_front import Upstream
from tiny_models import save_llama

from evoswarm.errors import UserError
from evoswarm.loop.history import written_config
from evoswarm.route.router import Router, load_router
from evoswarm.serve.ensemble import Refused
from evoswarm.serve.front import Front
from evoswarm.serve.offer import Choice, Offer, make_offer
from evoswarm.serve.router import Routing
from evoswarm.serve.vllm import VllmServer
from evoswarm.utility import make_utility
from evoswarm.utility.types import Chat

ROUTED = Choice(router=True)


@pytest.fixture(scope="module")
def offer(routed_run: Path) -> Offer:
    return make_offer(routed_run, ROUTED)


@pytest.fixture(scope="module")
def routing(offer: Offer) -> Routing:
    assert offer.router is not None
    return offer.router


@pytest.fixture(scope="module")
def questions(routed_run: Path) -> list[Chat]:
    config = written_config(routed_run)
    prompts = [request.prompt for request in make_utility(config.utility, root=config.root).requests("test")]
    return [prompt for prompt in prompts if isinstance(prompt, Chat)]


def body_of(chat: Chat) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in chat.messages]}


def test_the_router_and_its_candidates_are_offered(offer: Offer, routed_run: Path) -> None:
    names = [one.name for one in load_router(routed_run).candidates if one.row is not None]
    assert offer.names == ["winner", *names, "base", "router"]
    assert all((folder / "adapter_model.safetensors").exists() for folder in offer.adapters.values())


def test_every_test_prompt_gets_the_model_of_the_result(
    routing: Routing, questions: list[Chat], routed_run: Path
) -> None:
    wanted = load_router(routed_run).about["choices"]
    assert len(set(wanted)) > 1
    assert [routing.choose(body_of(chat)) for chat in questions] == wanted


def test_a_prompt_has_one_model_in_all_of_its_forms(routing: Routing, questions: list[Chat]) -> None:
    (_, text), *_ = questions[0].messages
    wanted = routing.choose(body_of(questions[0]))
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert routing.choose({"messages": parts, "stream": True, "chat_template_kwargs": {}}) == wanted
    ids = routing._embedder.ids(questions[0])
    assert routing.choose({"prompt": list(ids)}) == wanted
    assert routing.choose({"prompt": routing._embedder._encoder.tokenizer.decode(ids)}) == wanted


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "takes one prompt"),
        ({"prompt": ["a", "b"]}, "takes one prompt"),
        ({"prompt": [[1, 2]]}, "takes one prompt"),
        ({"prompt": [10**9]}, "outside of the model's vocabulary"),
        ({"prompt": "x " * 5000}, "the model takes"),
        ({"messages": []}, "must be a list of messages"),
        ({"messages": ["x"]}, "reads texts only"),
        ({"messages": [{"role": "user", "content": None}]}, "reads texts only"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "reads texts only"),
        ({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs"),
    ],
)
def test_a_request_without_a_readable_prompt_is_refused(routing: Routing, body: dict, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        routing.choose(body)
    assert caught.value.status == 400


def test_the_front_sends_a_request_to_the_chosen_model(offer: Offer, routing: Routing, questions: list[Chat]) -> None:
    upstream = Upstream()
    try:
        with TestClient(Front(offer, upstream, key=None).app) as client:
            for chat in questions[:8]:
                body = body_of(chat) | {"model": "router", "temperature": 0}
                assert client.post("/v1/chat/completions", json=body).status_code == 200
                assert upstream.asked[-1][1] == body | {"model": routing.choose(body)}
            refused = client.post("/v1/chat/completions", json={"model": "router", "messages": 3})
            assert refused.status_code == 400 and "messages must be" in refused.json()["error"]["message"]
            assert "router" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    finally:
        upstream.server.shutdown()


def test_names_and_paths_of_adapters_may_have_any_character(offer: Offer, tmp_path: Path) -> None:
    copy = Offer(offer.run_dir, offer.config, offer.model, "base", {"expert/a=b, c": offer.adapters["winner"]})
    given = VllmServer(copy)._arguments
    at = given.index("--lora-modules") + 1
    assert json.loads(given[at]) == {"name": "expert/a=b, c", "path": str(offer.adapters["winner"].resolve())}


def test_a_changed_pool_or_base_is_refused(routed_run: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(routed_run, tmp_path / "r"))
    router = load_router(run_dir)
    Router(router.gate, router.candidates, router.probes, router.embeddings, {**router.about, "base": "another"}).save(
        run_dir
    )
    with pytest.raises(UserError, match="the base model .* has changed since the router was fitted; restore it"):
        make_offer(run_dir, ROUTED)
    shutil.rmtree(run_dir / "router")
    with pytest.raises(UserError, match="has no router; fit one with `evoswarm route"):
        make_offer(run_dir, ROUTED)


def test_one_merged_model_or_checkpoints_have_no_router(routed_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--router: serves adapters of one base model, and --merged serves one model"):
        make_offer(routed_run, Choice(router=True, merged=True))
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "full" / name, seed=seed + 5, **SHAPE)
    folder = finished_run(tmp_path, pool=str(tmp_path / "full"))
    with pytest.raises(UserError, match="--router: serves adapters of one base model, and its particles are checkp"):
        make_offer(folder, ROUTED)


def test_a_router_that_gains_nothing_says_so(routed_run: Path, tmp_path: Path) -> None:
    run_dir, said = Path(shutil.copytree(routed_run, tmp_path / "r")), list[str]()
    router = load_router(run_dir)
    gate = router.gate
    one = type(gate)(gate.weight[:1] * 0, gate.bias[:1] * 0)
    Router(one, router.candidates[:1], router.probes, router.embeddings, router.about).save(run_dir)
    make_offer(run_dir, ROUTED, say=said.append)
    assert f"the router always answers with {router.candidates[0].name}" in said[0]
