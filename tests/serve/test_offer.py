"""What of a run is served under which names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serve_helpers import SHAPE, finished_run
from tiny_models import save_adapter, save_llama

from evoswarm.callbacks import Callbacks
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.history import position
from evoswarm.serve.offer import Choice, make_offer, slot_rank
from evoswarm.serve.run import api_key, listen, url_of
from evoswarm.serve.vllm import free_port


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("serve"))


def test_the_winner_and_its_base_are_offered(run_dir: Path) -> None:
    offer = make_offer(run_dir, Choice())
    assert offer.names == ["winner", "base"] and offer.adapters == {"winner": run_dir / "best"}
    assert not (run_dir / "serving" / "winner").exists()


def test_the_ensemble_has_the_voters_of_the_run(run_dir: Path) -> None:
    offer = make_offer(run_dir, Choice(ensemble=True))
    assert offer.names == ["winner", "base", "ensemble"] and offer.voters == ("winner", "voter_2", "voter_3")
    assert all((folder / "adapter_model.safetensors").exists() for folder in offer.adapters.values())
    assert offer.read is not None and offer.read(" X  ") == "X"


def test_voters_follow_the_ranking_of_the_run(tmp_path: Path) -> None:
    """A run that was served before it ended may rank its rows in another way when it ends."""
    run_dir = finished_run(tmp_path)
    before = make_offer(run_dir, Choice(ensemble=True)).adapters
    final = run_dir / "outcomes" / "final.jsonl"
    names = {"ensemble:1": "ensemble:2", "ensemble:2": "ensemble:1"}
    lines = [json.loads(line) for line in final.read_text().splitlines()]
    final.write_text("".join(json.dumps(line | {"who": names.get(line["who"], line["who"])}) + "\n" for line in lines))
    after = make_offer(run_dir, Choice(ensemble=True)).adapters
    assert before["voter_2"] != before["voter_3"]
    assert (after["voter_2"], after["voter_3"]) == (before["voter_3"], before["voter_2"])


def test_any_particle_has_a_name(run_dir: Path) -> None:
    offer = make_offer(run_dir, Choice())
    folder = offer.particle("gen_1/particle_2")
    assert folder is not None and (folder / "adapter_config.json").exists()
    assert offer.particle("gen_0001/particle_2") == folder
    assert position(run_dir, generation=1, particle=2).experts
    assert offer.particle("nobody") is None
    with pytest.raises(UserError, match="there is no generation 9, only 0 to 2"):
        offer.particle("gen_9/particle_0")
    with pytest.raises(UserError, match="has no particle 8, only 0 to 2"):
        offer.particle("gen_1/particle_8")


def test_a_particle_can_take_the_place_of_the_winner(run_dir: Path) -> None:
    offer = make_offer(run_dir, Choice(generation=1, particle=0))
    assert offer.adapters["winner"] == run_dir / "serving" / "gen_0001" / "particle_0"


def test_an_unfinished_run_offers_its_best_so_far_and_says_so(tmp_path: Path) -> None:
    seen: list[str] = []

    def notify(event: dict) -> None:
        seen.append(event["kind"])

    with pytest.raises(Stopped):
        finished_run(tmp_path, callbacks=Callbacks(notify=notify, stop=lambda: seen.count("generation") >= 1))
    said: list[str] = []
    offer = make_offer(tmp_path / "runs" / "r", Choice(ensemble=True), say=said.append)
    assert "the run is not finished; this is the best so far" in said[0]
    assert offer.adapters["winner"].name == "best" and len(offer.voters) == 3


def test_checkpoints_are_one_model_without_ensemble(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "full" / name, seed=seed + 5, **SHAPE)
    folder = finished_run(tmp_path, pool=str(tmp_path / "full"))
    offer = make_offer(folder, Choice())
    assert (
        offer.names == ["winner"] and offer.model == str(folder / "best") and offer.particle("gen_0/particle_0") is None
    )
    with pytest.raises(UserError, match="--ensemble: serves adapters of one base model, and its particles are checkp"):
        make_offer(folder, Choice(ensemble=True))


def test_whole_tensors_are_served_merged(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", seed=0)
    for seed, name in enumerate("ab"):
        save_adapter(base, tmp_path / "whole" / name, seed=seed, modules_to_save=["lm_head"])
    (tmp_path / "d.json").write_text(
        '{"dev": [{"question": "a", "answer": "x"}], "test": [{"question": "b", "answer": "x"}]}'
    )
    folder = finished_run(tmp_path, pool=str(tmp_path / "whole"))
    with pytest.raises(
        UserError, match="holds lm_head.weight as a whole, which vLLM cannot serve as an adapter; use --m"
    ):
        make_offer(folder, Choice())


def test_merged_is_one_model_that_is_written_once(run_dir: Path) -> None:
    said: list[str] = []
    offer = make_offer(run_dir, Choice(merged=True), say=said.append)
    assert offer.names == ["winner"] and Path(offer.model, "model.safetensors").exists()
    assert make_offer(run_dir, Choice(merged=True), say=said.append).model == offer.model
    assert said == ["merging the winner into the base model"]


def test_answers_that_cannot_be_voted_on_have_no_ensemble(tmp_path: Path) -> None:
    finished_run(tmp_path)
    utility = {"type": "regex", "pattern": "x", "data": str(tmp_path / "d.json"), "max_new_tokens": 2}
    folder = finished_run(tmp_path, utility=utility, name="s")
    with pytest.raises(
        UserError, match="--ensemble: the answers of utility.type regex cannot be voted on; leave it out"
    ):
        make_offer(folder, Choice(ensemble=True))


def test_the_rank_of_the_slots_is_the_smallest_that_fits(run_dir: Path) -> None:
    offer = make_offer(run_dir, Choice())
    assert offer.rank >= 4 and slot_rank(offer, None) in (8, 16) and slot_rank(offer, 33) == 64
    with pytest.raises(
        UserError, match=r"vLLM serves adapters up to rank 512, not 600; use --merged, or lower the rank"
    ):
        slot_rank(offer, 600)


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded() -> None:
    port = free_port()
    message = rf"--port {port}: cannot be used on 127.0.0.1 \(Address already in use\)"
    with listen("127.0.0.1", port), pytest.raises(UserError, match=message):
        listen("127.0.0.1", port)


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key(None, host="127.0.0.1") is None
    with pytest.raises(UserError, match="--host 0.0.0.0: other machines can reach it; name the variable of a key"):
        api_key(None, host="0.0.0.0")
    with pytest.raises(UserError, match="--api-key-env NOWHERE: the environment variable is not set"):
        api_key("NOWHERE", host="0.0.0.0")
    monkeypatch.setenv("SOMEWHERE", "k")
    assert api_key("SOMEWHERE", host="0.0.0.0") == "k"


def test_a_key_is_one_that_clients_can_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_KEY", "k\n")  # of a secret that was made from a file
    assert api_key("SERVE_KEY", host="0.0.0.0") == "k"
    monkeypatch.setenv("SERVE_KEY", "schlüssel")
    with pytest.raises(UserError, match="--api-key-env SERVE_KEY: a header cannot carry this key; use ASCII letters"):
        api_key("SERVE_KEY", host="0.0.0.0")


def test_the_address_of_an_ipv6_host_is_a_url() -> None:
    with listen("::1", free_port()) as listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"
