"""Folders and URLs: where pools and runs are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import PlainValidator

from evoswarm.errors import UserError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Whether `text` is a URL of storage; `file://` is a folder."""
    return bool(_URL.match(text)) and not text.startswith("file://")


def check_url(url: str) -> str:
    """The URL without a slash at the end.

    Raises:
        UserError: it contains credentials, which the message does not repeat, or it has no bucket.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest or "?" in rest:
        raise UserError(
            f"{scheme}://...: a URL must not contain credentials or options, because it is saved with the run; "
            "set them in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...)"
        )
    if not rest.strip("/"):
        raise UserError(f"{url}: has no bucket; use for example s3://bucket/runs")
    return url.rstrip("/")


def _place(value: Any) -> Path | str:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("input is not a valid path")
    return value if is_url(value) else Path(value.removeprefix("file://"))


Place = Annotated[Path | str, PlainValidator(_place, json_schema_input_type=str)]
"""A path; or a URL, which stays a string."""


def cache_folder() -> Path:
    """This node's copies of folders at URLs: EVOSWARM_CACHE, else ~/.cache/evoswarm."""
    return Path(os.environ.get("EVOSWARM_CACHE") or "~/.cache/evoswarm").expanduser().absolute()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when it is complete and on disk, and not at all if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of `folder` when it is complete, and not at all if anything fails."""
    temporary, old = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # The old folder is moved aside first, so a crash never leaves a partial folder.
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class RunPlace:
    """Where this process finds the files of a run.

    Attributes:
        path: the run directory; for a run at a URL, the folder in which this node works on it.
        url: the URL of a run that is in storage.
    """

    path: Path
    url: str | None = None

    @classmethod
    def of(cls, output: Path | str, name: str) -> RunPlace:
        """The place of the run `name` in a folder or at a URL."""
        if isinstance(output, Path):
            return cls(output / name)
        url = f"{output}/{name}"
        return cls(cache_folder() / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16] / name, url)

    def on_this_node(self) -> RunPlace:
        """The place of the same run in a process on another node, whose cache may be elsewhere."""
        if self.url is None:
            return self
        output, _, name = self.url.rpartition("/")
        return RunPlace.of(output, name)

    def __str__(self) -> str:
        """As the user names it."""
        return self.url or str(self.path)
