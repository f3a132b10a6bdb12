"""`serve`, `chat`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from evoswarm.cli.progress import console, results_only
from evoswarm.cli.report import RunDir
from evoswarm.cli.run import Overrides

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
    generation: Generation = None,
    particle: Particle = None,
    set_: Overrides = None,
    vllm_options: Annotated[
        list[str] | None, typer.Argument(help="After `--`: options of vLLM's own server, e.g. --max-model-len 4096.")
    ] = None,
) -> None:
    """Serve a run with vLLM behind OpenAI's API: the models `winner`, `base`, `ensemble`, `gen_3/particle_2`, ..."""
    from evoswarm.serve.offer import Choice, make_offer
    from evoswarm.serve.run import api_key, listen
    from evoswarm.serve.run import serve as serve_offer
    from evoswarm.serve.vllm import VllmServer
    from evoswarm.storage.cache import local_copy

    key = api_key(api_key_env, host=host)
    listener = listen(host, port)
    folder = local_copy(run_dir)
    with results_only():
        choice = Choice(ensemble, merged, generation, particle, tuple(set_ or ()))
        offer = make_offer(folder, choice, say=_say)
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


def _say(text: str) -> None:
    console.print(text, style="dim", markup=False, soft_wrap=True)
