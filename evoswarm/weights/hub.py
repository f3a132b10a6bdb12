"""Models and adapters by their names on the Hugging Face hub: one download per node, quick without a network."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from evoswarm.errors import UserError

SECONDS = 5.0
"""How long the hub may take to answer at all. Its own client retries for a minute."""
SETTINGS = ["*.json", "*.jinja", "*.model", "*.txt", "*.py"]
"""Files of a model without its weights."""
WEIGHTS = [*SETTINGS, "*.safetensors"]


def model_folder(model: str, *, weights: bool = True, unreachable: Callable[[], str | None] | None = None) -> str:
    """The local folder of a base model. A model on the hub is downloaded into the hub's cache; processes of one node
    wait for each other there.

    Args:
        model: a folder, or a name on the hub.
        weights: False for configuration and tokenizer alone.
        unreachable: why the hub does not answer, or None; by default it is asked once per process.

    Raises:
        UserError: no such folder, or the model is neither in the cache nor available from the hub.
    """
    require_model(model)
    if Path(model).is_dir():
        return model
    patterns = WEIGHTS if weights else SETTINGS
    return str(_snapshot(model, patterns, unreachable=unreachable, instead="set `model` to a folder"))


def expert_folder(
    name: str, *, complete: Callable[[Path], bool], unreachable: Callable[[], str | None] | None = None
) -> Path:
    """The local folder of an adapter or checkpoint on the hub, in the hub's cache.

    Args:
        name: `owner/name`, or `owner/name@revision`.
        complete: whether a folder holds an expert. Only if not, checkpoints in subfolders are downloaded as well.
        unreachable: see `model_folder`.

    Raises:
        UserError: it is neither in the cache nor available from the hub.
    """
    repository, _, revision = name.partition("@")
    instead = "give the path of a folder that exists"
    for ignored in (["checkpoint-*/*"], []):
        folder = _snapshot(
            repository, WEIGHTS, ignored=ignored, revision=revision or None, unreachable=unreachable, instead=instead
        )
        if complete(folder):
            break
    return folder


def _snapshot(
    name: str,
    patterns: Sequence[str],
    *,
    instead: str,
    ignored: Sequence[str] = (),
    revision: str | None = None,
    unreachable: Callable[[], str | None] | None,
) -> Path:
    """The files of a repository on the hub that match the patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    reason = (unreachable or hub_unreachable)()
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignored),
                local_files_only=reason is not None,
            )
        )
    except HFValidationError:
        raise UserError(f"{name}: no such folder, and not a name on the hub") from None
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name}: not in the hub's cache, and the hub cannot be reached ({reason or 'the download failed'}); "
            f"{instead}, or run `hf download {name}` where there is a network and copy the cache"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise UserError(
            f"{name}: the hub refuses it (HTTP {status}); check the name, and HF_TOKEN if access is restricted"
        ) from None


_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_name(text: str) -> bool:
    """Whether a text can be the name of a repository on the hub: `owner/name`, or `owner/name@revision`."""
    return bool(_HUB_NAME.fullmatch(text))


def cached_model(model: str) -> Path | None:
    """The folder of a base model if its files are on this machine; the hub is not asked."""
    if Path(model).is_dir():
        return Path(model)
    if is_path(model):
        return None
    try:
        return Path(model_folder(model, unreachable=lambda: "not asked"))
    except UserError:
        return None


def is_path(model: str) -> bool:
    """Whether a base model is given as the path of a folder, and not as a name on the hub."""
    return Path(model).is_absolute() or model.startswith(".") or model.count("/") > 1


def require_model(model: str) -> None:
    """Check a base model as far as it is possible without the hub.

    Raises:
        UserError: it is the path of a folder that does not exist.
    """
    if is_path(model) and not Path(model).is_dir():
        raise UserError(f"{model}: no such folder; give the base model's folder or its name on the hub")


@cache
def hub_unreachable() -> str | None:
    """Why the hub does not answer within `SECONDS`; None if it does."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            found.append(None)
        except Exception as error:  # of httpx, or of a proxy
            found.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)  # resolving a name has no time limit of its own
    return found[0] if found else f"no answer within {SECONDS:g} s"
