"""Settings of the transformers engine."""

from __future__ import annotations

from typing import ClassVar, Literal

from evoswarm.engine.config import ModelEngine


class TransformersEngine(ModelEngine):
    """Hugging Face transformers, on CPU or GPU."""

    type: Literal["transformers"] = "transformers"
    device: str | None = None
    """torch device, for example `cuda:0`; null: the GPU if there is one, else the CPU."""

    implementation: ClassVar[str] = "evoswarm.engine.transformers:HfEngine"
    combined: ClassVar[str] = "evoswarm.engine.combined.transformers:CombinedEngine"
    bytewise: ClassVar[str] = "evoswarm.engine.combined.bytewise:ByteEngine"
    mixes: ClassVar[bool] = True
    values: ClassVar[bool] = True

    def notice(self, model: str) -> str | None:
        """Which data type replaces the saved one."""
        from evoswarm.engine.dtype import computed_dtype, device_of

        return computed_dtype(model, self, device=device_of(self.device))[1]
