"""The settings of a pool of experts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evoswarm.place import Place
from evoswarm.section import Section

CANDIDATES = 20
"""Default of `pool.candidates`."""


class PoolConfig(Section):
    """The experts. A bare string or list in place of this section is `experts`."""

    experts: Place | list[Place]
    """A folder of expert folders (sorted by name), or a list of expert folders: PEFT adapters, or full checkpoints of
    one architecture. Folders may be URLs (s3://, gs://, or anything fsspec supports): every node keeps a copy. In a
    list, experts may also have names on the Hugging Face hub (owner/name, or owner/name@revision)."""
    kind: Literal["weights", "models", "steering"] = "weights"
    """What a particle is. weights: a mix of the experts' weights. models: coefficients of whole models, of any
    architecture and tokenizer, whose probabilities are mixed; experts are checkpoints, or adapters, which stand for
    `model` with them. steering: coefficients of what is added to what `model` predicts: the differences of small
    experts from `small_model`, and the scores of value models (sequence-classification checkpoints with one label)."""
    small_model: Annotated[str, Field(min_length=1)] | None = None
    """The base model of the small experts: a folder, or a name on the Hugging Face hub. Only with `kind: steering`;
    a pool of value models needs none."""
    candidates: int = Field(CANDIDATES, ge=1)
    """How many of the likeliest next tokens value models are asked about; no other token is chosen. Only with
    `kind: steering`."""
    include_base: bool = False
    """Add the base model itself to the pool as the expert `base`. Moves are affine (coefficients sum to 1); with the
    base model in the pool, the coefficients of the other experts can have any sum. With `kind: steering`, the
    default is true."""
    space: Literal["product", "factors"] | None = None
    """How LoRA experts are mixed. product: their products B A, exactly; ranks and target modules may differ, and a
    particle has the sum of the ranks. factors: A and B one by one, which needs experts of one form that were trained
    from the same first A. null: factors for such experts, product for all others; see also
    `prefer_product`."""
    prefer_product: bool | None = None
    """With `space: null`, product for all LoRA experts. null: true for the searches
    `bayes`, `evogm` and `pso_merging`, else false."""
    check_values: bool = True
    """Read every value once before the run starts, to find NaN and infinities."""

    @model_validator(mode="before")
    @classmethod
    def _steer_from_the_base(cls, data: Any) -> Any:
        steers = isinstance(data, dict) and data.get("kind") == "steering"
        return {"include_base": True} | data if steers else data

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind != "weights" and self.space is not None:
            raise ValueError(f"space says how weights are mixed, and kind {self.kind} mixes none; omit it")
        if self.kind != "steering" and self.small_model is not None:
            raise ValueError(f"small_model is for kind steering, not {self.kind}; omit it")
        if self.kind != "steering" and self.candidates != CANDIDATES:
            raise ValueError(f"candidates are for kind steering, not {self.kind}; omit it")
        return self


class ExportConfig(Section):
    """The files of the best expert."""

    rank: int | None = Field(None, ge=1)
    """Truncate the best LoRA to this rank, by SVD of each B A. null: the rank that it has, which in product space is
    the sum of its experts' ranks. The summary says which share of the squared norm is kept (`best.kept`). Utilities
    are those of the full rank."""
