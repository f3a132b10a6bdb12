"""Files below a URL. A file appears complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow import fs as arrow

from evoswarm.errors import UserError
from evoswarm.place import replacing

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds. A file that changes gets another stamp."""
_REFUSED = (
    "ACCESS_DENIED",
    "Access Denied",
    "INVALID_ACCESS_KEY",
    "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH",
    "HTTP status 403",
    "Forbidden",
    "ermission denied",
    "UNRECOGNIZED_CLIENT",
)
_NO_PLACE = ("NO_SUCH_BUCKET", "NoSuchBucket", "Bucket does not exist", "bucket does not exist")
_ATOMIC = ("s3", "gs", "gcs", "abfs", "abfss", "az", "memory")
"""Protocols that do not show a file while it is being written. On others, files are written elsewhere and moved."""
_HINT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the machine's service account",
}


class StorageError(UserError):
    """An operation on storage failed. `refused`: retrying will not help."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Remote:
    """The files below one URL. Names are relative to it."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            UserError: the kind of URL is unknown, or its package is not installed.
        """
        self.url = url.rstrip("/")
        self._protocol = self.url.partition("://")[0]
        with self._explained():
            self._fs, self._root = _filesystem(self.url)

    def stamps(self) -> dict[str, Stamp]:
        """Every file by name; empty if the URL does not exist."""
        with self._explained():
            found = self._fs.get_file_info(arrow.FileSelector(self._root, recursive=True, allow_not_found=True))
        start = len(self._root.strip("/")) + 1
        files = (info for info in found if info.type == arrow.FileType.File)
        return {info.path.strip("/")[start:]: (info.size or 0, info.mtime_ns or 0) for info in files}

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if it does not exist."""
        try:
            with self._explained(), self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def get(self, name: str, path: Path) -> None:
        """Download a file to `path`, which appears only when it is complete.

        Raises:
            FileNotFoundError: it does not exist.
        """
        with self._explained(), self._fs.open_input_stream(self._path(name)) as source, replacing(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def put(self, path: Path, name: str) -> None:
        """Upload a local file."""
        with path.open("rb") as file:
            self._write(name, iter(lambda: file.read(8 << 20), b""))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._write(name, iter([data]))

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        try:
            with self._explained():
                self._fs.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def _write(self, name: str, parts: Iterator[bytes]) -> None:
        path = self._path(name)
        with self._explained():
            atomic = self._protocol in _ATOMIC
            if not atomic:
                self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            target = path if atomic else f"{path}.tmp"
            with self._fs.open_output_stream(target) as stream:
                for part in parts:
                    stream.write(part)
            if not atomic:
                self._fs.move(target, path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of storage into one line each."""
        try:
            yield
        except (FileNotFoundError, UserError):
            raise
        except ImportError as error:
            raise UserError(f"{self.url}: reading {self._protocol}:// needs another package ({error})") from None
        except Exception as error:  # every library behind fsspec has its own errors
            if isinstance(error, OSError) and error.filename is not None:  # the local side
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            if any(words in text for words in _NO_PLACE):
                raise StorageError(f"{self.url}: there is no such bucket; create it first", refused=True) from None
            if any(words in text for words in _REFUSED):
                hint = _HINT.get(self._protocol, "its credentials in the environment")
                text = f"{self.url}: permission denied; check {hint}, and their permissions"
                raise StorageError(text, refused=True) from None
            raise StorageError(f"{self.url}: storage does not answer ({text[:200]})") from None


def _filesystem(url: str) -> tuple[arrow.FileSystem, str]:
    """The file system of a URL, and the path in it. S3 and GCS use Arrow's, which need no further package."""
    protocol, _, path = url.partition("://")
    if protocol == "s3":
        return arrow.S3FileSystem(**_s3_options(path.partition("/")[0])), path
    if protocol in ("gs", "gcs"):
        return arrow.GcsFileSystem(), path
    import fsspec

    if protocol not in fsspec.available_protocols():
        raise UserError(
            f"{url}: {protocol}:// is not a known kind of storage; use s3://, gs:// or another that fsspec supports"
        )
    filesystem, path = fsspec.url_to_fs(url)
    return arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), path


def _s3_options(bucket: str) -> dict[str, Any]:
    """Delayed open sends small files in one request."""
    options: dict[str, Any] = {"allow_delayed_open": True}
    if server := other_s3_server():
        scheme, _, host = server["endpoint"].partition("://")
        return options | {"endpoint_override": host, "scheme": scheme, "region": server["region"]}
    return options if _region() else options | {"region": arrow.resolve_s3_region(bucket)}


def other_s3_server() -> dict[str, str] | None:
    """Endpoint and region of a server other than Amazon's, if AWS_ENDPOINT_URL names one."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return None
    scheme, _, host = endpoint.rpartition("://")
    return {"endpoint": f"{scheme or 'https'}://{host.rstrip('/')}", "region": _region() or "us-east-1"}


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
