"""Config fields whose section depends on a `type` key: one of the entries of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from evoswarm.errors import did_you_mean
from evoswarm.section import Section

SectionOf = Callable[[Any], type[Section]]


@dataclass(frozen=True)
class by_type:  # noqa: N801  reads as a function, like pydantic's own annotations
    """Annotates a field: its section is that of the registry entry named by `type`.

    The registry is read at validation time, so entries that are added later are found.

    Example:
        search: Annotated[Evolution, by_type(SEARCHES, lambda entry: entry.config_class, default="model_swarms")]

    Attributes:
        registry: entries by type.
        section: gives the config class of an entry; by default the entry is one.
        default: the type of a section that does not give one; None: it must give one.
    """

    registry: Mapping[str, Any]
    section: SectionOf = lambda entry: entry
    default: str | None = None

    def choose(self, value: Any) -> type[Section]:
        """The config class for the raw value of the field.

        Raises:
            ValueError: no type, or an unknown one.
        """
        kind = value.get("type", self.default) if isinstance(value, Mapping) else None
        if kind is None:
            raise ValueError(f"needs a type; known types: {', '.join(self.registry)}")
        if not isinstance(kind, str) or kind not in self.registry:
            raise ValueError(f"unknown type {kind!r}; {did_you_mean(kind, self.registry, kind='types')}")
        return self.section(self.registry[kind])

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate with the chosen class, and serialize all of its fields."""
        dump = core_schema.plain_serializer_function_ser_schema(
            lambda value, info: value.model_dump(mode=info.mode), info_arg=True
        )

        def validate(value: Any) -> Any:
            return value if isinstance(value, source) else self.choose(value).model_validate(value)

        return core_schema.no_info_plain_validator_function(validate, serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """One of the entries' schemas, told apart by `type`."""
        return {"oneOf": [self._json_schema(name, entry, handler) for name, entry in self.registry.items()]}

    def _json_schema(self, name: str, entry: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(self.section(entry).__pydantic_core_schema__))
        needed = [] if name == self.default else ["type"]
        return schema | {"required": [*schema.get("required", []), *needed]}
