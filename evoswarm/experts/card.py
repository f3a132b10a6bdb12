"""The model card of a trained expert."""

from __future__ import annotations

import json
from typing import Any

from evoswarm.config.training import TrainingConfig
from evoswarm.experts.method import Chosen


def training_card(config: TrainingConfig, name: str, chosen: Chosen, record: dict[str, Any]) -> str:
    """README.md in the Hugging Face format: data, settings, loss, and how to load the expert."""
    data, loss, settings = record["data"], record["loss"], config.optimization(name)
    front = {"library_name": _LIBRARY[config.save], "base_model": config.model, "tags": ["evoswarm", chosen.name]}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    load = _CHECKPOINT if config.save == "checkpoint" else _adapter(config, chosen)
    form = {"lora": "" if chosen.plain else ", saved as equivalent LoRA", "checkpoint": ", merged into the base model"}
    dropped = f", {data['dropped_examples']} dropped, {data['cut_examples']} truncated"
    left_out = dropped if data["dropped_examples"] else ""
    return f"""---
{header}
---
# {name}

Trained by evoswarm with {chosen.name}{form.get(config.save, "")}.

| | |
|---|---|
| data | {data["path"]} (sha256 of the tokens: {data["sha256"][:12]}) |
| examples | {data["examples"]}{left_out} |
| tokens | {data["tokens"]}, {data["trained_tokens"]} of them in the loss |
| steps | {record["steps"]} of {settings.batch_size} examples |
| learning rate | {settings.learning_rate}, {settings.schedule}, warm-up {settings.warmup} |
| seed | {config.seed} |
| trained parameters | {record["trained_parameters"]} |
| loss | {loss["first"]:.4f} in the first step, {loss["last_tenth"]:.4f} in the last tenth |
| seconds | {record["seconds"]:.0f} |

```python
{load}```

All settings and the loss of every step are in training.json. Versions: {versions}.
"""


_LIBRARY = {"lora": "peft", "checkpoint": "transformers", "native": "peft"}
_CHECKPOINT = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(folder)
"""


def _adapter(config: TrainingConfig, chosen: Chosen) -> str:
    wegeft = config.save == "native" and chosen.name == "wegeft"
    return f"""{"import evoswarm.experts.wegeft  # for peft" + chr(10) if wegeft else ""}from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{config.model}")
model = PeftModel.from_pretrained(base, folder)
"""
