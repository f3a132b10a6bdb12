"""The model every section of the configuration derives from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _gpus(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("must be a fraction up to 1, or a whole number of GPUs")
    if 0 < value < 0.0001:
        raise ValueError("is finer than Ray counts: 0, or 0.0001 and more")
    return value


Gpus = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_gpus)]
"""GPUs of one actor, as Ray takes them."""


class Section(BaseModel):
    """Frozen; unknown keys are errors; the docstring under a field is its help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, protected_namespaces=()
    )
