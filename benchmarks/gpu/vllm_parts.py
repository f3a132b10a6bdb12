"""The parts with vLLM alone: installing, scoring, particles side by side, and repeating bit for bit."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.engine import fingerprint
from benchmarks.gpu.served import Notes, Served, answers, differing, rpc, scores, timed
from benchmarks.install import best_of
from benchmarks.running import Running
from evoswarm.engine.vllm import VllmEngine

TOKENS = 32
Answers = tuple[list[float], list[list[int]]]
"""Scores of options, and generated answers."""


def merged(note: Notes, folder: Path, tiny: bool, *, large: bool = False) -> None:
    """Particles that are merged: A/B/A, installs from both places, speed, and what batches change."""
    served = Served(folder, tiny, large)
    engine = served.engine(note, served.config(share=0.6, pristine="device"))
    note(runner=type(rpc(engine, lambda worker: worker.model_runner)).__module__)
    a_b_a(note, served, engine)
    tampered(note, served, engine)
    scoring(note, served, engine)
    keep(served, engine)
    for place in ("device", "host"):
        engine.install(None)
        rpc(engine, lambda worker: vars(worker).pop("_evoswarm_place", None))
        engine._pristine = place
        for rank in (16, 64):  # both have the same scale, so that one engine takes them
            note(**{f"{place}, r{rank}": installs(Served(folder, tiny, large, rank), engine)})
        note(**{f"{place}: pristine": rpc(engine, lambda w: w._evoswarm_place and w._evoswarm_place._pristine.places)})
        a_b_a(note, served, engine, label=f"{place}: ")
    if not large:
        compositions(note, served, engine)


def repeated(note: Notes, folder: Path, tiny: bool, *, deterministic: bool) -> None:
    """What batches change, and what it costs that they change nothing."""
    served = Served(folder, tiny)
    settings = served.config(share=0.5, deterministic=deterministic and torch.cuda.is_available())
    engine = served.engine(note, settings)
    a_b_a(note, served, engine)
    compositions(note, served, engine)
    scoring(note, served, engine)


def installs(served: Served, engine: VllmEngine) -> dict[str, float]:
    """Seconds of an install, and of a plain copy of the same parameters from where their pristine copies are."""
    turns = itertools.cycle([served.adapter(1), served.adapter(2)])
    seconds = best_of({"install": lambda: engine.install(next(turns)), "copy": lambda: rpc(engine, restore)})
    return {
        "GB": rpc(engine, written) / 1e9,
        "install, s": seconds["install"],
        "copy, s": seconds["copy"],
        "of a copy": seconds["copy"] / seconds["install"],
    }


def restore(worker: Any) -> None:
    """A plain copy of all adapted parameters."""
    place = worker._evoswarm_place
    if place is None:
        return
    for shards in place._shards.values():
        for shard in shards:
            place._pristine.restore(shard.target)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def written(worker: Any) -> int:
    """Bytes of the adapted parameters."""
    place = worker._evoswarm_place
    return sum(s.target.nbytes for shards in place._shards.values() for s in shards) if place else 0


def a_b_a(note: Notes, served: Served, engine: VllmEngine, label: str = "") -> None:
    """Base, two adapters, the first again, base again: parameters and scores."""
    adapters = {"A": served.adapter(1), "B": served.adapter(2)}
    prints: dict[str, set[str]] = {}
    found: dict[str, list[list[float]]] = {}
    some = served.prompts(8)
    for name in ("base", "A", "B", "A", "base"):
        engine.install(adapters.get(name))
        prints.setdefault(name, set()).add(rpc(engine, lambda worker: fingerprint(worker.model_runner.get_model())))
        found.setdefault(name, []).append(scores(engine, some))
    note(
        **{
            f"{label}parameters the same after every return": all(len(one) == 1 for one in prints.values()),
            f"{label}parameters all different": len(set.union(*prints.values())) == len(prints),
            f"{label}scores that changed after a return": {
                name: differing(*lists) for name, lists in found.items() if len(lists) == 2
            },
            f"{label}scores that an adapter changes": differing(found["base"][0], found["A"][0]),
            f"{label}scores": len(found["base"][0]),
        }
    )


def tampered(note: Notes, served: Served, engine: VllmEngine) -> None:
    """A wrong weight is noticed."""
    adapter = served.adapter(1)
    engine.install(adapter)
    right = engine.wrong_weights(adapter)
    rpc(engine, lambda worker: spoil(worker))
    note(wrong_weights_of_a_right_install=right, of_a_spoiled_one=engine.wrong_weights(adapter))
    engine.install(None)


@torch.no_grad()
def spoil(worker: Any) -> None:
    """Change one adapted parameter."""
    if (place := worker._evoswarm_place) is not None:
        next(iter(place._shards.values()))[0].target.mul_(1.5)


def scoring(note: Notes, served: Served, engine: VllmEngine) -> None:
    """Examples per second of merged particles, 200 prompts each, and how many sequences run."""
    running, prompts = Running(engine), served.prompts(200)
    engine.generate(prompts, max_new_tokens=4)
    running.take()
    for tokens in (1, TOKENS, 128):
        found = []
        for seed in (1, 2):
            install, _ = timed(engine.install, served.adapter(seed))
            seconds, _ = timed(engine.generate, prompts, max_new_tokens=tokens)
            found.append((seconds, install))
        seconds, install = min(found)
        figures = {"examples/s": len(prompts) / seconds, "s": seconds, "install, s": install} | running.take()
        note(**{f"merged, {tokens} tokens": figures})
    seconds, _ = timed(scores, engine, prompts)
    note(options={"examples/s": len(prompts) / seconds, "s": seconds} | running.take())


def keep(served: Served, engine: VllmEngine) -> None:
    """Save what the base and the merged adapter 1 answer, for the part with particles side by side."""
    prompts, found = served.prompts(200), {}
    for name, weights in (("base", None), ("adapter", served.adapter(1))):
        engine.install(weights)
        found[name] = [scores(engine, prompts), answers(engine, prompts, TOKENS)]
    (served.folder / f"{served.name}-merged.json").write_text(json.dumps(found))


def beside(note: Notes, folder: Path, tiny: bool, *, large: bool = False) -> None:
    """40 particles side by side, and their answers next to those of merged particles."""
    served, count = Served(folder, tiny, large), 3 if tiny else 40
    settings = served.config(share=0.85, adapter_mode="multi_lora", max_loras=count)
    engine = served.engine(note, settings)
    adapters = {number: served.adapter(number) for number in range(count)}
    seconds, _ = timed(engine.install_adapters, adapters)
    note(install_all_s=seconds)
    prompts = served.prompts(200)
    of = [number for number in adapters for _ in prompts]
    running, group = Running(engine), engine.group(of)
    group.generate(prompts * count, max_new_tokens=2)
    running.take()
    all_answers: list[list[int]] = []
    for tokens in (1, TOKENS):
        seconds, all_answers = timed(answers, group, prompts * count, tokens)
        figures = {"examples/s": len(of) / seconds, "s": seconds} | running.take()
        note(**{f"multi_lora, {tokens} tokens": figures})
    found = scores(engine.group([1] * len(prompts)), prompts)
    saved = json.loads((served.folder / f"{served.name}-merged.json").read_text())
    note(
        scores=len(found),
        largest_difference_to_merged=furthest(found, saved["adapter"][0]),
        largest_change_by_the_adapter=furthest(saved["base"][0], saved["adapter"][0]),
        answers=len(prompts),
        answers_that_differ=differing(all_answers[len(prompts) : 2 * len(prompts)], saved["adapter"][1]),
        answers_that_the_adapter_changes=differing(saved["base"][1], saved["adapter"][1]),
    )


def furthest(some: list[float], others: list[float]) -> float:
    """The largest difference."""
    return max(abs(one - other) for one, other in zip(some, others, strict=True))


def compositions(note: Notes, served: Served, engine: VllmEngine) -> None:
    """Scores and answers of the same particle in batches of different composition."""
    engine.install(served.adapter(1))
    prompts = served.prompts(200)
    whole = answers_of(engine, prompts, len(prompts))
    note(scores=len(whole[0]), answers=len(whole[1]), different_answers=len(set(map(tuple, whole[1]))))

    def compare(way: str, found: Answers) -> None:
        counts = {"scores": differing(found[0], whole[0]), "answers": differing(found[1], whole[1])}
        note(**{f"differ {way}": counts | {"by at most": furthest(found[0], whole[0])}})

    for size in (len(prompts), 64, 7):
        compare(f"in batches of {size}", answers_of(engine, prompts, size))
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    mixed, width = answers_of(engine, [prompts[i] for i in order], 33), len(whole[0]) // len(prompts)
    back = sorted(range(len(order)), key=order.__getitem__)
    ordered = [mixed[0][i * width + k] for i in back for k in range(width)], [mixed[1][i] for i in back]
    compare("shuffled, in batches of 33", ordered)
    engine.install(served.adapter(2))
    engine.install(served.adapter(1))
    compare("after another particle", answers_of(engine, prompts, len(prompts)))


def answers_of(engine: VllmEngine, prompts: list[Any], size: int) -> Answers:
    """Scores and answers, so many prompts in a call."""
    found: Answers = ([], [])
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        found[0].extend(scores(engine, part))
        found[1].extend(answers(engine, part, TOKENS))
    return found
