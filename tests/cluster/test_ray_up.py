"""Ray accepts the `ray up` files, and they agree with the start scripts and the images."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = ("aws", "gcp", "on-premise")


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / f"cluster/{name}.yaml").read_text())


def options(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+)=(\S+)", text))


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", FILES)
def test_the_start_commands_agree_with_the_scripts(name: str) -> None:
    config = load(name)
    for kind in ("head", "worker"):
        command = config[f"{kind}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token " in command and "ulimit -n" in command
        script, here = options((ROOT / f"cluster/start-{kind}.sh").read_text()), options(command)
        here.pop("autoscaling-config", None)
        here.pop("address", None)
        assert here.items() <= script.items()
        assert ("--num-cpus=0" in command) == (kind == "head")
    assert options(config["head_start_ray_commands"][-1])["dashboard-host"] == "127.0.0.1"
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", ("aws", "gcp"))
def test_the_image_is_the_gpu_build_of_this_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (ray,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert load(name)["docker"]["image"] == f"evoswarm:{version}-ray{ray}-gpu"


def test_ray_accepts_the_runtime_env() -> None:
    from ray.runtime_env import RuntimeEnv

    settings = yaml.safe_load((ROOT / "cluster/runtime_env.yaml").read_text())
    assert RuntimeEnv(**settings)["env_vars"]["HF_HOME"] == "/data/hub"
