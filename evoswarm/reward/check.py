"""What the files of a model say about its score head, before its weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from evoswarm.errors import UserError, first_line
from evoswarm.reward.texts import TextEncoder
from evoswarm.utility.scoring import Facts, ScoringModel
from evoswarm.weights.expert import checkpoint_files, no_weights, read_json
from evoswarm.weights.hub import cached_model, model_folder
from evoswarm.weights.tensorfile import TensorFile

CLASS = "AutoModelForSequenceClassification"
INSTEAD = "give a reward model or a classifier"
OTHER_HEADS = ("ForTokenClassification", "ProcessReward", "ForQuestionAnswering", "ForMultipleChoice")
"""Parts of the names of architectures whose head has the tensors of a score head, and another meaning."""


def inspect(settings: ScoringModel) -> Facts:
    """See `ScoringModel.inspect`. The files of weights are looked at if they are on this machine."""
    config = read_config(settings)
    TextEncoder(settings, config)
    if (folder := cached_model(settings.model)) is not None:
        require_head(settings, config, folder)
    return facts_of(config)


def read_config(settings: ScoringModel) -> PretrainedConfig:
    """The model's configuration.

    Raises:
        UserError: it cannot be read, or transformers has no score head for this kind of model.
    """
    folder = model_folder(settings.model, weights=False)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        if not settings.trust_remote_code and "auto_map" in read_json(Path(folder) / "config.json"):
            what = "comes with code of its own; set trust_remote_code: true if you trust its author"
            raise UserError(f"{settings.model}: {what}") from None
        raise UserError(f"{settings.model}: the configuration cannot be read ({first_line(error)})") from None
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not remote_classes(config):
        raise UserError(f"{settings.model}: a {config.model_type} model has no sequence-classification form; {INSTEAD}")
    if other := [name for name in config.architectures or [] if any(head in name for head in OTHER_HEADS)]:
        raise UserError(f"{settings.model}: is {other[0]}, which does not score whole texts; {INSTEAD}")
    return config


def facts_of(config: PretrainedConfig) -> Facts:
    """The labels by position, and the problem type."""
    return Facts(tuple(str(config.id2label[i]) for i in sorted(config.id2label)), config.problem_type)


def remote_classes(config: PretrainedConfig) -> dict[str, Any]:
    """Classes in the code that comes with the model, by transformers' name for them."""
    found: dict[str, Any] = config.to_dict().get("auto_map") or {}
    return {name: place for name, place in found.items() if name in (CLASS, "AutoModel")}


def auto_class(settings: ScoringModel, config: PretrainedConfig) -> Any:
    """The class that loads the model. Some reward models (InternLM2) come with code for `AutoModel` alone."""
    remote = remote_classes(config) if settings.trust_remote_code else {}
    return AutoModel if remote and CLASS not in remote else AutoModelForSequenceClassification


def require_files(settings: ScoringModel, folder: Path) -> list[Path]:
    """The model's safetensors files.

    Raises:
        UserError: there are none.
    """
    if not (files := checkpoint_files(folder)):
        raise UserError(f"{settings.model}: {no_weights(folder, CLASS)}")
    return files


def require_head(settings: ScoringModel, config: PretrainedConfig, folder: Path) -> None:
    """Check that the tensors of the score head are in the files: transformers would fill them at random.

    Raises:
        UserError: they are not.
    """
    present = {name for path in require_files(settings, folder) for name in TensorFile(path).specs}
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return  # its own code knows the head; loading finds what is missing
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    inside = f"{model.base_model_prefix}."
    heads = sorted(name for name in model.state_dict() if not name.startswith(inside))
    missing = [head for head in heads if not any(name.endswith(head) for name in present)]
    if missing:
        raise UserError(f"{settings.model}: {no_head(config, missing)}")


def no_head(config: PretrainedConfig, missing: list[str]) -> str:
    """The message about a model without a score head."""
    names = ", ".join(config.architectures or []) or config.model_type
    kind = "is a generative model" if "ForCausalLM" in names or "ForConditionalGeneration" in names else "is"
    return (
        f"{kind} ({names}) without a score head: its files do not contain {missing[0]}; {INSTEAD}, saved as a "
        "sequence-classification model"
    )
