"""The system calls that a program may make: those of computing and of its own files and threads."""

from __future__ import annotations

import errno
import socket
import tempfile
from functools import lru_cache
from typing import Any

from evoswarm.errors import UserError, not_installed

_ALLOWED = """\
read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 open openat openat2 creat close close_range
lseek _llseek stat fstat lstat newfstatat stat64 fstat64 lstat64 fstatat64 statx access faccessat faccessat2 readlink
readlinkat getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink
symlinkat truncate ftruncate fallocate fsync fdatasync statfs fstatfs umask dup dup2 dup3 pipe pipe2 flock sendfile
copy_file_range mmap mmap2 munmap mprotect mremap madvise brk msync futex futex_time64 futex_waitv set_robust_list
get_robust_list rseq set_tid_address arch_prctl rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
rt_sigsuspend sigaltstack restart_syscall exit exit_group gettid getpid getppid getuid geteuid getgid getegid getresuid
getresgid getgroups getpgrp getpgid getsid sched_yield sched_getaffinity sched_getparam sched_getscheduler nanosleep
sched_get_priority_max sched_get_priority_min clock_nanosleep clock_gettime clock_getres gettimeofday time times
getrusage getrlimit ugetrlimit setrlimit sysinfo uname getrandom getcpu membarrier poll ppoll select _newselect pselect6
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime
timerfd_gettime setitimer getitimer alarm pause wait4 waitid recvfrom shutdown getsockopt setsockopt getsockname
getpeername"""
_THREAD = 0x10000
_UNIX, _STREAM, _KIND_OF_SOCKET = int(socket.AF_UNIX), int(socket.SOCK_STREAM), 0xF
_FCNTL = range(8)
"""F_DUPFD to F_SETLKW. Others send signals to processes of choice."""
_FCNTL_MORE = (1030, 1031, 1032)
"""F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_NAMES = (15, 16)
"""PR_SET_NAME, PR_GET_NAME."""


@lru_cache
def seccomp_filter() -> bytes:
    """The filter as the kernel's instructions. What it does not allow fails with ENOSYS; nothing is killed.

    There are threads, but no further processes; pairs of sockets, but none that leads outside; no signals, no shared
    memory, no memory outside of the limits, and no change of the rights of files.

    Raises:
        UserError: pyseccomp, or the library libseccomp, is not installed.
    """
    try:
        import pyseccomp
    except ImportError:
        raise not_installed("utility: {type: code}", "pyseccomp", extra="code") from None
    except RuntimeError:
        raise UserError(
            "utility: {type: code} needs the library libseccomp; install your system's package, such as libseccomp2"
        ) from None
    found = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    for name in _ALLOWED.split():
        _allow(found, name)
    arg, equal, masked = pyseccomp.Arg, pyseccomp.EQ, pyseccomp.MASKED_EQ
    _allow(found, "clone", arg(0, masked, _THREAD, _THREAD))
    _allow(found, "prlimit64", arg(0, equal, 0))
    _allow(found, "socketpair", arg(0, equal, _UNIX), arg(1, masked, _KIND_OF_SOCKET, _STREAM))
    _allow(found, "sendto", arg(4, equal, 0))
    for name, position, values in (
        ("fcntl", 1, (*_FCNTL, *_FCNTL_MORE)),
        ("fcntl64", 1, (*_FCNTL, *_FCNTL_MORE)),
        ("ioctl", 1, _IOCTL),
        ("prctl", 0, _NAMES),
    ):
        for value in values:
            _allow(found, name, arg(position, equal, value))
    with tempfile.TemporaryFile() as file:
        found.export_bpf(file)
        file.seek(0)
        return file.read()


def _allow(found: Any, name: str, *arguments: Any) -> None:
    import pyseccomp

    try:
        found.add_rule(pyseccomp.ALLOW, name, *arguments)
    except OSError:  # an older library that does not know this call, or another processor without it
        return
