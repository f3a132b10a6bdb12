"""Settings of loading a base model, for engines and for training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evoswarm.section import Section


class ModelLoading(Section):
    """How a base model is loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the base model; auto: as saved."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads per process. Part of the definition of the result: another number may round differently."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you trust its author."""
