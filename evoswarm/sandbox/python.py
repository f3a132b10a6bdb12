"""The Python that runs programs in a sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.sandbox.users import User

_ASK = """
import json, os, site, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": os.path.realpath(sys.executable),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "folders": sorted({sys.base_prefix, sys.base_exec_prefix, paths["stdlib"]}),
    "packages": sorted({paths["purelib"], paths["platlib"], *site.getsitepackages()}),
}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter.

    Attributes:
        executable: its file, not a link.
        version: such as 3.11.7.
        folders: what it reads: its standard library, and the installed packages if programs may use them.
        packages: folders of the installed packages that programs may import.
    """

    executable: str
    version: str
    folders: tuple[str, ...]
    packages: tuple[str, ...]


def find_python(wanted: str | None, *, packages: bool, user: User | None) -> Python:
    """The interpreter `wanted`; by default this one, or the system's python3 if `user` cannot read this one.

    Raises:
        UserError: it does not start.
    """
    choices = [wanted] if wanted else [sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")]
    problem = ""
    for choice in filter(None, choices):
        try:
            return _described(choice, packages=packages, user=user)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problem = problem or str(error)
    where = "utility.python" if wanted else "utility.python, the Python of the sandbox,"
    whose = f" for the user with id {user.uid}, as whom programs run" if user else ""
    raise UserError(f"{where} does not start{whose}: {problem}; set utility.python to one that does")


def _described(path: str, *, packages: bool, user: User | None) -> Python:
    found = shutil.which(path)
    if found is None:
        raise OSError(f"{path} is no program")
    done = subprocess.run(
        [found, "-I", "-c", _ASK],
        capture_output=True,
        check=True,
        cwd="/",
        env={},
        timeout=60,
        user=user.uid if user else None,
        group=user.uid if user else None,
        extra_groups=[] if user else None,
    )
    about = json.loads(done.stdout)
    extra = tuple(name for name in about["packages"] if Path(name).is_dir()) if packages else ()
    folders = tuple(name for name in about["folders"] if name != "/")
    return Python(about["executable"], about["version"], (*folders, *extra), extra)
