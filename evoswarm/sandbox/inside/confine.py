"""A process takes away its own rights: limits, Landlock (kernel 6.2 or newer) and a seccomp filter."""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import signal
import sys
from typing import Any

ABI_NEEDED = 3
"""The first ABI of Landlock that limits truncate(2)."""
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_FOLDER, _WRITE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_READ = _READ_FILE | _READ_FOLDER
_REMOVE_AND_MAKE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13
"""rmdir, unlink, mkdir, regular files, symbolic links, renames; neither devices nor sockets nor FIFOs."""
_OWN = _READ | _WRITE | _TRUNCATE | _REMOVE_AND_MAKE
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38


def confine(settings: dict[str, Any]) -> None:
    """Take away everything that `settings` do not allow.

    Args:
        settings: `limits` by the names of `resource`; `parent`, the process with which this one dies, or null;
            `landlock`: {"read": paths, "own": folder} or null; `seccomp`: a filter (base64) or null.

    Raises:
        OSError: the kernel cannot do this.
    """
    for name, value in settings["limits"].items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if settings["parent"] is not None:
        _checked(libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0))
        if os.getppid() != settings["parent"]:
            os._exit(1)
    _checked(libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    if settings["landlock"] is not None:
        _landlock(libc, settings["landlock"])
    if settings["seccomp"] is not None:
        _seccomp(libc, base64.b64decode(settings["seccomp"]))


class _Rules(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def _landlock(libc: Any, paths: dict[str, Any]) -> None:
    """Refuse every file but `read` and `own`, and where the kernel can, TCP, abstract sockets and signals."""
    abi = _checked(libc.syscall(_CREATE, None, 0, 1))
    if abi < ABI_NEEDED:
        raise OSError(f"the kernel's Landlock has ABI {abi}, and {ABI_NEEDED} is needed")
    rules = _Rules(2**16 - 1 if abi >= 5 else 2**15 - 1, 3, 3)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0))
    for path, rights in [*((path, _READ) for path in paths["read"]), (paths["own"], _OWN), ("/dev/null", _OWN)]:
        if not os.path.exists(path):
            continue
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= -1 if os.path.isdir(path) else _READ_FILE | _WRITE | _TRUNCATE
        beneath = _Beneath(rights, folder)
        _checked(libc.syscall(_ADD, ruleset, 1, ctypes.byref(beneath), 0))
        os.close(folder)
    _checked(libc.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _seccomp(libc: Any, code: bytes) -> None:
    """Load a filter: 8 bytes for each instruction."""
    program = _Program(len(code) // 8, code)
    _checked(libc.prctl(_SET_SECCOMP, 2, ctypes.byref(program), 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
