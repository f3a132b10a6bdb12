"""The winner as an application of Ray Serve LLM, behind an API key: Ray's token does not protect the port of Serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from evoswarm.config.run import RayBackend
from evoswarm.engine import VllmEngine
from evoswarm.engine.vllm_internals import environment
from evoswarm.engine.vllm_settings import arguments
from evoswarm.errors import UserError, first_line
from evoswarm.launch.connect import connected
from evoswarm.section import Section
from evoswarm.serve.key import has_key, key_in
from evoswarm.serve.offer import Offer


class ServeArgs(Section):
    """`args` of the application in a RayService, and of `evoswarm serve --address`."""

    model: Path
    """Folder of a whole model that every node can read, such as `evoswarm export --merged` writes."""
    name: str = "winner"
    """Its name for clients."""
    api_key_env: str = "EVOSWARM_API_KEY"
    """Environment variable of the pods that holds the key which clients must send."""
    replicas: int = Field(1, ge=1)
    """Number of replicas."""
    cpus: int = Field(1, ge=1)
    """CPUs of each replica."""
    engine: VllmEngine = VllmEngine()
    """Settings of vLLM, as in the config of a run."""
    gpus: int = Field(0, ge=0)
    """GPUs of each replica: 0, or engine.args.tensor_parallel_size."""


def build(args: dict[str, Any]) -> Application:
    """The application, for `import_path: evoswarm.serve.cluster:build`; `args` are those of `ServeArgs`.

    Raises:
        UserError: there is no such model.
    """
    checked = ServeArgs.model_validate(args)
    if not (checked.model / "config.json").is_file():
        raise UserError(f"{checked.model}: has no config.json; write it with `evoswarm export RUN --merged -o FOLDER`")
    config = llm_config(checked)
    app = KeyedApp(checked.api_key_env)
    ingress = make_fastapi_ingress(OpenAiIngress, app=app)
    options = OpenAiIngress.get_deployment_options([config])
    cards = {checked.name: _card(checked.name, config)}
    deployments = {checked.name: build_llm_deployment(config)}
    bound: Application = serve.deployment(ingress, **options).bind(llm_deployments=deployments, model_cards=cards)
    return bound


def llm_config(args: ServeArgs) -> LLMConfig:
    """Ray Serve LLM's config of one model."""
    engine = arguments(args.engine.merged(), model=str(args.model), adapter=None)
    for name in ("model", "use_tqdm_on_load"):
        engine.pop(name)
    share = {"CPU": args.cpus} | ({"GPU": 1} if args.gpus else {})
    return LLMConfig(
        model_loading_config={"model_id": args.name, "model_source": str(args.model)},
        engine_kwargs=engine,
        deployment_config={"num_replicas": args.replicas},
        placement_group_config={"bundles": [share] * max(1, args.gpus)},
        runtime_env={"env_vars": environment(threads=args.cpus) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}},
    )


def _card(name: str, config: LLMConfig) -> Any:
    """What /v1/models says; the only part that Ray Serve LLM has no public name for."""
    from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata

    return to_model_metadata(name, config)


class KeyedApp(FastAPI):
    """Ray Serve LLM's application, which answers only requests with the key."""

    def __init__(self, variable: str) -> None:
        """`variable` is read where the application runs."""
        from ray.llm._internal.serve.core.ingress.ingress import init

        known = init()
        super().__init__(lifespan=known.router.lifespan_context)
        self.user_middleware = [*known.user_middleware]
        self.exception_handlers = known.exception_handlers
        self.add_middleware(KeyRequired, variable=variable)


class KeyRequired:
    """Refuses requests without the key, except for Serve's own health check. Without a key, it refuses all."""

    def __init__(self, app: ASGIApp, *, variable: str) -> None:
        self._app, self._variable = app, variable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        key = key_in(self._variable)
        if key and has_key(dict(scope["headers"]).get(b"authorization", b""), key):
            return await self._app(scope, receive, send)
        problem = "the API key is missing or wrong" if key else f"the server has no key: set {self._variable}"
        body = {"error": {"message": problem, "type": "invalid_request_error"}}
        await JSONResponse(body, 401 if key else 503)(scope, receive, send)


def serve_args(offer: Offer, variable: str | None, *, replicas: int, cpus: int, gpus: int) -> ServeArgs:
    """The application for the model of an offer. `variable` has the key; None: the default."""
    engine = offer.config.engine if isinstance(offer.config.engine, VllmEngine) else VllmEngine()
    found = ServeArgs(model=Path(offer.model), engine=engine, replicas=replicas, cpus=cpus, gpus=gpus)
    return found.with_(api_key_env=variable) if variable else found


def deploy(args: ServeArgs, *, address: str) -> None:
    """Deploy the application on a running cluster, and wait until it answers; it stays when this process ends.

    Raises:
        UserError: the cluster cannot be reached, or the application does not start.
    """
    with connected(RayBackend(address=address)):
        try:
            serve.start(http_options={"host": "0.0.0.0"})  # nosec B104: it answers only requests with the key
            serve.run(build(args.model_dump(mode="json")), name="evoswarm", route_prefix="/")
        except RuntimeError as error:
            raise UserError(f"the application does not start ({first_line(error)}); see `serve status`") from None
