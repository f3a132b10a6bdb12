"""Which versions of vLLM are accepted: by their number if it was tested, else by what they have."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from evoswarm.engine.vllm_versions import Use, absent, check_version, lacking, untested
from evoswarm.errors import UserError


def test_only_versions_newer_than_the_tested_ones_are_worth_a_warning() -> None:
    assert untested("0.26.0") is untested("0.32.1+cpu") is untested("0.32.1.dev7") is None
    for version in ("0.33.0", "1.0"):
        assert f"vLLM {version} is newer than 0.32, the newest version that was tested" in str(untested(version))


@pytest.mark.parametrize("use", ["merged", "multi_lora", "metrics"])
def test_the_installed_version_has_everything_that_the_engine_uses(use: Use) -> None:
    pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
    assert list(absent(use)) == []


def vllm_of(version: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Only the top module of a vLLM of this version."""
    module = ModuleType("vllm")
    module.__version__ = version  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.startswith("vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def test_a_version_that_is_too_old_is_one_line_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_of("0.25.1", monkeypatch)
    with pytest.raises(UserError) as caught:
        check_version()
    assert str(caught.value) == (
        "engine vllm: vLLM 0.25.1 is installed, evoswarm needs 0.26 or newer; run pip install 'vllm==0.32.*', or use "
        "engine.type: transformers"
    )


def test_a_newer_version_without_something_that_is_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = vllm_of("0.40.0", monkeypatch)

    class LLM:
        def collective_rpc(self, method: str) -> None: ...

    module.LLM = LLM  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"and has no vllm:LLM.collective_rpc\(args=\); run pip install 'vllm==0.32"):
        check_version()
    assert lacking("multi_lora", "0.40.0") == "vllm.engine.arg_utils:EngineArgs"
    assert lacking("multi_lora", "0.32.0") is None
