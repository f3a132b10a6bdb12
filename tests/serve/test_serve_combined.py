"""Models that answer together behind OpenAI's API: the offer, and a real server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openai
import pytest
from serve_helpers import SHAPE, WORDS, finished_run
from tiny_models import save_llama

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.settings import KEY
from evoswarm.errors import UserError
from evoswarm.loop.history import written_config
from evoswarm.serve.combined import CombinedOffer, offer_of
from evoswarm.serve.ensemble import Refused
from evoswarm.serve.offer import Choice
from evoswarm.utility import make_utility
from evoswarm.weights.mixfile import read_mix


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose particles steer a larger base."""
    folder = tmp_path_factory.mktemp("steering")
    large = save_llama(folder / "large", seed=9, hidden_size=96, **SHAPE)
    pool = {"kind": "steering", "small_model": str(folder / "base"), "experts": str(folder / "pool")}
    return finished_run(folder, model=str(large), pool=pool)


def expected(run_dir: Path, offer: CombinedOffer, folder: Path | None) -> list[str]:
    """The answers of a particle, with transformers."""
    config = written_config(run_dir)
    engine = TransformersEngine().start_combined(offer.combination)
    mix = None if folder is None else read_mix(folder)
    found = {} if mix is None else {member.name: member.coefficient for member in mix.members}
    mixing = np.array([found.get(name, 0) for name in offer.experts], np.float32)
    engine.install({"mixing": mixing})
    requests = make_utility(config.utility, root=config.root).requests("test")
    return engine.generate([request.prompt for request in requests], max_new_tokens=6)


def test_every_name_is_a_vector_of_coefficients(run_dir: Path) -> None:
    offer = offer_of(run_dir, Choice())
    assert isinstance(offer, CombinedOffer) and offer.names == ["winner", "base"] and not offer.adapters
    mix = read_mix(run_dir / "best")
    assert mix is not None
    body = {"messages": [], "vllm_xargs": {KEY: [1, 2]}, "stop_token_ids": [7]}
    sent = offer.request(body, "winner")
    weights = sent["vllm_xargs"][KEY]
    given = {member.name: member.coefficient for member in mix.members}
    assert weights[0] == 1 and weights[1] == pytest.approx(-sum(given.values()), abs=1e-6)
    assert dict(zip(offer.experts, weights[2:], strict=True)) == pytest.approx(
        {n: given.get(n, 0) for n in offer.experts}
    )
    assert (sent["model"], sent["stop_token_ids"]) == ("winner", [7, *offer.ends])
    assert offer.request(body, "base")["vllm_xargs"] is None
    assert offer.particle("gen_1/particle_0") is not None and offer.particle("another") is None
    assert len(offer.request(body, "gen_1/particle_0")["vllm_xargs"][KEY]) == len(weights)
    with pytest.raises(Refused, match="takes no prompt_logprobs"):
        offer.request(body | {"prompt_logprobs": 1}, "winner")


@pytest.mark.parametrize("choice", [Choice(ensemble=True), Choice(merged=True)])
def test_what_needs_adapters_is_refused(run_dir: Path, choice: Choice) -> None:
    with pytest.raises(UserError, match="the particles of this run are coefficients of models"):
        offer_of(run_dir, choice)


@pytest.mark.slow
def test_a_real_server_gives_the_answers_of_the_run(run_dir: Path) -> None:
    pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
    from test_serve import serving

    offer = offer_of(run_dir, Choice())
    assert isinstance(offer, CombinedOffer)
    with serving(run_dir) as (client, _, _):
        for name, folder in (
            ("winner", run_dir / "best"),
            ("base", None),
            ("gen_1/particle_1", offer.particle("gen_1/particle_1")),
        ):
            answers = [
                client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": word}], max_tokens=6, temperature=0
                )
                .choices[0]
                .message.content
                for word in WORDS
            ]
            assert answers == expected(run_dir, offer, folder)
        with pytest.raises(openai.BadRequestError, match="takes no prompt_logprobs"):
            client.completions.create(model="winner", prompt="x", extra_body={"prompt_logprobs": 1})
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="gen_9/particle_0", prompt="x")
