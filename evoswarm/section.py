"""The base class of every section of a configuration, and field types that several sections use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from evoswarm.errors import did_you_mean

Rate = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _gpus(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("must be a fraction up to 1, or a whole number of GPUs")
    if 0 < value < 0.0001:
        raise ValueError("is too small for Ray; use 0, or at least 0.0001")
    return value


Gpus = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_gpus)]
"""GPUs of one actor, in Ray's units."""


MAY_CHANGE = object()
"""Marks a field that a resumed run may change, because no result depends on it: `Annotated[int, MAY_CHANGE]`."""


class Section(BaseModel):
    """A frozen section. Unknown keys are errors. The docstring under a field is its help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, protected_namespaces=()
    )

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Errors about unknown keys name the closest known one."""
        try:
            return handler(data)
        except ValidationError as error:
            problems = [cls._explained(problem) for problem in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, problems) from None

    @classmethod
    def _explained(cls, problem: ErrorDetails) -> InitErrorDetails:
        kind: str | PydanticCustomError = problem["type"]
        if kind == "extra_forbidden" and len(problem["loc"]) == 1:
            kind = PydanticCustomError("unknown_key", did_you_mean(problem["loc"][0], cls.model_fields, kind="keys"))
        elif kind == "unknown_key":
            kind = PydanticCustomError("unknown_key", problem["msg"])
        return {"type": kind, "loc": problem["loc"], "input": problem["input"], "ctx": problem.get("ctx", {})}

    def with_(self, **changes: Any) -> Self:
        """A validated copy with some fields changed; a mapping changes fields of a nested section.

        Example:
            config.with_(name="again", search={"max_generations": 3})
        """
        values = {name: getattr(self, name) for name in type(self).model_fields} | (self.model_extra or {})
        for name, change in changes.items():
            old = values.get(name)
            values[name] = old.with_(**change) if isinstance(old, Section) and isinstance(change, Mapping) else change
        return type(self).model_validate(values)

    def lasting(self, *, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
        """JSON data without the fields, here and in nested sections, that a resumed run may change."""
        data = self.model_dump(mode="json", include=include, exclude=exclude)
        _drop_changing(self, data)
        return data


def _drop_changing(value: Any, data: Any) -> None:
    """Remove from the JSON data of a value what is marked with `MAY_CHANGE`."""
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            if MAY_CHANGE in field.metadata:
                data.pop(name, None)
            elif name in data:
                _drop_changing(getattr(value, name), data[name])
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _drop_changing(part, data.get(key))
    elif isinstance(value, list | tuple):
        for part, dumped in zip(value, data, strict=True):
            _drop_changing(part, dumped)
