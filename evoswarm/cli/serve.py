"""`serve`, `chat`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoswarm.cli.progress import console, results_only
from evoswarm.cli.report import RunDir
from evoswarm.cli.run import Overrides
from evoswarm.errors import UserError

if TYPE_CHECKING:
    from evoswarm.serve.offer import Choice, Offer

Generation = Annotated[
    int | None, typer.Option(help="Take a particle of this generation in place of the winner (default: the last one).")
]
Particle = Annotated[
    int | None, typer.Option(help="Take this particle in place of the winner (default: the global best).")
]


def serve(
    run_dir: RunDir,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Also serve the ensemble's majority vote as the model `ensemble`.")
    ] = False,
    router: Annotated[
        bool,
        typer.Option("--router", help="Also serve the router that `evoswarm route` has fitted, as the model `router`."),
    ] = False,
    router_device: Annotated[
        str, typer.Option(help="Where the base model embeds prompts for the router: cpu, cuda:1, ...")
    ] = "cpu",
    merged: Annotated[
        bool, typer.Option("--merged", help="Serve the winner merged into the base model, and nothing else.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key which clients must send.")
    ] = None,
    max_rank: Annotated[
        int | None, typer.Option(min=1, help="Highest rank of particles that are asked for by name.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Deploy the merged winner with Ray Serve LLM on this cluster: auto or host:port.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="With --address: number of replicas.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="With --address: CPUs of each replica.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="With --address: GPUs of each replica.")] = 0,
    generation: Generation = None,
    particle: Particle = None,
    set_: Overrides = None,
    vllm_options: Annotated[
        list[str] | None, typer.Argument(help="After `--`: options of vLLM's own server, e.g. --max-model-len 4096.")
    ] = None,
) -> None:
    """Serve a run with vLLM behind OpenAI's API: `winner`, `base`, `ensemble`, `router`, `gen_3/particle_2`, ..."""
    from evoswarm.serve.combined import offer_of
    from evoswarm.serve.offer import Choice
    from evoswarm.storage.cache import local_copy

    choice = Choice(
        ensemble, merged or address is not None, generation, particle, tuple(set_ or ()), router, router_device
    )
    if _is_mix(folder := local_copy(run_dir)):
        return _serve_mix(folder, choice, host, port, api_key_env, {"--max-rank": max_rank, "--": vllm_options})
    if address is not None:
        offer = offer_of(folder, choice, say=_say)
        return _deploy(offer, address, api_key_env, {"replicas": replicas, "cpus": cpus, "gpus": gpus})
    _require_extra()
    from evoswarm.serve.run import api_key, listen
    from evoswarm.serve.run import serve as serve_offer
    from evoswarm.serve.vllm import VllmServer

    key = api_key(api_key_env, host=host)
    listener = listen(host, port)
    with results_only():
        offer = offer_of(folder, choice, say=_say)
        vllm = VllmServer(offer, most_rank=max_rank, options=vllm_options or ())
    _say("starting vLLM")
    serve_offer(offer, vllm, listener, key=key, say=_say)


def chat(
    run_dir: RunDir,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    generation: Generation = None,
    particle: Particle = None,
    set_: Overrides = None,
) -> None:
    """Chat with a run's winner on the terminal, with the run's own engine. An empty line starts again."""
    from evoswarm.serve.chat import Conversation
    from evoswarm.storage.cache import local_copy

    folder = local_copy(run_dir)
    with results_only():
        conversation = Conversation(
            folder,
            system=system,
            max_new_tokens=max_new_tokens,
            generation=generation,
            particle=particle,
            overrides=set_ or (),
            say=_say,
        )
    with conversation:
        while True:
            if sys.stdin.isatty():
                console.print("> ", end="")
            line = sys.stdin.readline()
            if not line:
                return
            if not line.strip():
                conversation.clear()
            else:
                with results_only():
                    answer = conversation.ask(line.strip())
                print(answer, flush=True)


def _is_mix(run_dir: Path) -> bool:
    """Whether a run mixes the options of models."""
    from evoswarm.loop.history import written_config

    config = written_config(run_dir)
    return config.pool.kind == "models" and config.utility.unmixable is None


def _serve_mix(
    run_dir: Path, choice: Choice, host: str, port: int, variable: str | None, of_vllm: dict[str, object]
) -> None:
    _require_extra("uvicorn")
    from evoswarm.serve.mix import load_mix, serve_mix
    from evoswarm.serve.run import api_key, listen

    if given := [option for option, value in of_vllm.items() if value]:
        raise UserError(f"{given[0]} is for vLLM's server, and a mix of models is served without it; leave it out")
    key, listener = api_key(variable, host=host), listen(host, port)
    with results_only():
        model, chat = load_mix(run_dir, choice, say=_say)
    serve_mix(model, chat, listener, key=key, say=_say)


def _deploy(offer: Offer, address: str, variable: str | None, size: dict[str, int]) -> None:
    _require_extra("ray.serve.llm")
    from evoswarm.serve.cluster import deploy, serve_args

    _say(f"deploying {offer.model}")
    deploy(serve_args(offer, variable, **size), address=address)
    _say("serving winner on the cluster, port 8000; `serve status` shows it, `serve shutdown` ends it")


def _require_extra(module: str = "vllm") -> None:
    """Check that the packages of the extra `serve` are here."""
    try:
        if find_spec(module) is not None:
            return
    except ImportError:
        pass
    raise UserError("evoswarm serve needs more packages; install them with `pip install 'evoswarm[serve]'`")


def _say(text: str) -> None:
    console.print(text, style="dim", markup=False, soft_wrap=True)
