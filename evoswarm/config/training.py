"""What a training of experts is: one adapter per data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from evoswarm.engine.loading import ModelLoading
from evoswarm.place import is_url
from evoswarm.section import NonNegative, Positive, Rate, Section

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def _local(value: Any) -> Any:
    if isinstance(value, str) and is_url(value):
        raise ValueError("is a URL; training reads and writes folders only: copy or mount it")
    return value


Local = Annotated[Path, BeforeValidator(_local)]


class TrainingData(Section):
    """The examples of one expert. A plain string instead of this section is the `path`."""

    path: Local
    """A JSONL, JSON, CSV or Parquet file, or a folder written by datasets' `save_to_disk`. Records are `messages` (a
    list of role and content, as in Tulu) or `conversations` (a list of from and value, as in ShareGPT), `prompt` and
    `completion`, `instruction`, `input`, `output` and `history` (Alpaca), or `question` and `answer`, each with an
    optional `system`; `text` (all of it is in the loss); or `input_ids` and `labels`."""
    split: str | None = None
    """The split to use; null: `train`, or the only one."""
    columns: dict[str, str] = {}
    """Column mapping from evoswarm's name to the file's: {completion: response}."""
    limit: int | None = Field(None, ge=1)
    """Use only this many records, from the start."""
    chat_template: bool | Path | None = None
    """Render prompts with the tokenizer's chat template; null: if it has one. A path: with the template in this file.
    Conversations always need one."""
    chat_template_kwargs: dict[str, str | int | float | bool | None] = {}
    """Variables for the chat template, for example `{enable_thinking: false}`."""
    turns: Literal["all", "last"] = "all"
    """Which assistant turns count in the loss. `last` is for templates that rewrite earlier turns."""


class Method(Section):
    """How experts are adapted: any method of peft by its name, with any key of its peft config.

    Besides peft's own names (lora, miss, vera, ...), those of LoRA's variants: rslora, dora, pissa, olora, corda,
    lora_ga, loftq, kasa. And wegeft, which comes with evoswarm.
    """

    model_config = ConfigDict(extra="allow")

    type: str = "lora"
    """Name of the method."""

    @property
    def settings(self) -> dict[str, Any]:
        """Keys of the method's peft config."""
        return dict(self.model_extra or {})


class Optimization(Section):
    """Training hyperparameters. Defaults are GENOME's where published."""

    epochs: Positive = 1
    """Passes over the data."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many steps; overrides `epochs`."""
    learning_rate: Positive = 2e-4
    """Peak learning rate."""
    schedule: str = "cosine"
    """Learning rate schedule, with its name in transformers: cosine, linear, constant_with_warmup, ..."""
    warmup: Rate = 0.1
    """Share of the steps in which the learning rate rises."""
    batch_size: int = Field(16, ge=1)
    """Examples per step."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples per forward pass; null: the whole batch. Must divide `batch_size`."""
    weight_decay: NonNegative = 0
    """AdamW's weight decay."""
    max_grad_norm: Positive = 1
    """Gradients are clipped to this norm."""
    max_length: int = Field(2048, ge=2)
    """Longer examples are truncated at the end, in tokens."""
    packing: bool = False
    """Put the examples of a batch into one row without padding. They do not attend to each other."""
    bf16: bool | None = None
    """Compute in bfloat16, with adapters in float32; null: on GPUs that support it."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of storing them: slower, with much less memory."""
    checkpoint_steps: int = Field(200, ge=1)
    """Steps between checkpoints. A killed training resumes from the newest one."""
    args: dict[str, Any] = {}
    """Any other argument of transformers' TrainingArguments, passed on unchanged: `optim`, `adam_beta2`,
    `neftune_noise_alpha`."""

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Optimization:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}; change one"
            )
        return self


class Expert(Section):
    """One expert. A plain string instead of this section is its data."""

    data: TrainingData
    """Its training data."""
    training: Optimization | None = None
    """Its own hyperparameters, instead of the common ones."""

    @field_validator("data", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value


class TrainingLocal(Section):
    """One expert after another, in this process."""

    type: Literal["local"] = "local"


class TrainingRay(Section):
    """One Ray task per expert."""

    type: Literal["ray"] = "ray"
    address: str | None = None
    """Cluster address (`auto`, `host:6379`, `ray://host:10001`); null: RAY_ADDRESS if set, else a local cluster."""
    gpus: Rate | None = None
    """GPUs per expert, up to 1; null: 1 if the cluster has GPUs, else 0. Fractions share a GPU."""
    wait_seconds: NonNegative = 300
    """How long to wait for resources that the cluster does not have yet."""
    max_retries: int = Field(3, ge=0)
    """How often to retry an expert whose worker was lost, from its newest checkpoint."""


Save = Literal["lora", "checkpoint", "native"]
"""Forms in which experts are saved."""


class TrainingConfig(ModelLoading):
    """One pool of experts to train."""

    model: str = Field(min_length=1)
    """Base model: a folder, or a name on the Hugging Face hub."""
    tokenizer: str | None = None
    """Folder of another tokenizer than the base model's, for example one that was saved with an expert."""
    pool: Local
    """Folder to write, with one folder per expert, ready for `evoswarm run`."""
    experts: dict[str, Expert] = Field(min_length=1)
    """The experts: name and data of each."""
    method: Method = Method()
    """The adapter method."""
    training: Optimization = Optimization()
    """Hyperparameters of all experts."""
    save: Save = "lora"
    """lora: save as plain LoRA; methods without an exact conversion are refused. checkpoint: merge the adapter and save
    the whole model, for methods that merge. native: save in the method's own format; only LoRA and WeGeFT experts can
    then evolve, WeGeFT in phi and psi."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the initial adapter, the order of examples and dropout. All experts start from the same adapter."""
    backend: Annotated[TrainingLocal | TrainingRay, Field(discriminator="type")] = TrainingRay()
    """Where it runs."""
    root: Path = Path(".")
    """Folder that relative paths start from; default: the config file's folder."""

    @field_validator("experts", mode="before")
    @classmethod
    def _data_alone(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in value:
            if not isinstance(name, str) or not _NAME.match(name):
                raise ValueError(f"{name!r} is no name for an expert; use letters, digits, dot, dash and underscore")
        return {name: {"data": data} if isinstance(data, str | Path) else data for name, data in value.items()}

    @field_validator("method", mode="before")
    @classmethod
    def _method_alone(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("backend", mode="before")
    @classmethod
    def _default_backend(cls, value: Any) -> Any:
        return {"type": "ray"} | value if isinstance(value, dict) else value

    def optimization(self, expert: str) -> Optimization:
        """The training settings of one expert."""
        return self.experts[expert].training or self.training
