"""Build the CPU image without a registry of images: docker/build.py [option of `buildah build` ...]

buildah builds the Dockerfile. Its base image comes from Debian's packages: debootstrap makes a root file system
with Debian's Python, which gets the name of the Dockerfile's base image, so it must not be in this machine's storage
under that name yet. Needs root, buildah and debootstrap. Options are passed on, for example a volume with settings of
pip, or `--build-arg TORCH_ARGS=...`. `--tag` alone prints the name of the image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker/Dockerfile"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_image(text: str) -> str:
    """The image in a registry from which a Dockerfile starts."""
    return re.findall(r"^FROM (\S+:\S+) ", text, flags=re.MULTILINE)[0]


def debian(image: str) -> str:
    """The release of Debian in the name of an image of Docker's library."""
    return image.rpartition("-")[2]


def tag() -> str:
    """The name of the CPU image, as in docker-bake.hcl."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (ray,) = [line.partition("==")[2] for line in lines if line.startswith("ray==")]
    return f"evoswarm:{version}-ray{ray}-cpu"


def make_base(image: str) -> None:
    """Make the base image, unless this machine has one of that name."""
    name = f"docker.io/library/{image}"
    if subprocess.run(["buildah", "inspect", "--type=image", name], capture_output=True).returncode == 0:
        return
    with tempfile.TemporaryDirectory(prefix="evoswarm-base-") as folder:
        root, archive = Path(folder) / "root", Path(folder) / "root.tar"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", debian(image), str(root))
        (root / "usr/bin/python").symlink_to("python3")
        _run("tar", "--directory", str(root), "--create", "--file", str(archive), ".")
        container = subprocess.run(["buildah", "from", "scratch"], capture_output=True, text=True, check=True)
        working = container.stdout.strip()
        _run("buildah", "add", "--quiet", working, str(archive), "/")
        _run("buildah", "config", f"--env=PATH={PATH}", "--cmd=python3", working)
        _run("buildah", "commit", "--quiet", "--rm", working, name)


def build(image: str, options: list[str]) -> None:
    """Build the image. `chroot` works where containers may not be nested; `docker` keeps the health check."""
    fixed = ["--isolation=chroot", "--format=docker", "--pull=never", "--layers", "--network=host"]
    files = ["--file", str(DOCKERFILE), "--ignorefile", f"{DOCKERFILE}.dockerignore"]
    _run("buildah", "build", *fixed, *files, "--build-arg=BUILD=cpu", "--target=evoswarm", f"--tag={image}", *options)


def _run(*command: str) -> None:
    print("+", " ".join(command), flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    """Build the base image and the CPU image."""
    if {"--help", "-h"} & set(sys.argv):
        return print(__doc__)
    if "--tag" in sys.argv:
        return print(tag())
    if missing := [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]:
        sys.exit(f"error: {' and '.join(missing)} not found; install Debian's packages of these names")
    if os.geteuid():
        sys.exit("error: debootstrap and buildah need root here")
    try:
        make_base(base_image(DOCKERFILE.read_text(encoding="utf-8")))
        build(tag(), sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error.cmd[0]} ended with status {error.returncode}; its output is above")
    print(f"built localhost/{tag()}")


if __name__ == "__main__":
    main()
