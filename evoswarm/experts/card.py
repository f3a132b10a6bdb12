"""The model card of a trained expert."""

from __future__ import annotations

import json
from typing import Any

from evoswarm.config.training import TrainingConfig
from evoswarm.experts.method import Chosen


def training_card(config: TrainingConfig, name: str, chosen: Chosen, record: dict[str, Any]) -> str:
    """README.md in the Hugging Face format: data, settings, loss, and how to load the expert."""
    data, loss, settings = record["data"], record["loss"], config.optimization(name)
    converted = chosen.route == "converted" and config.save == "lora"
    front = {"library_name": "peft", "base_model": config.model, "tags": ["evoswarm", chosen.name]}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    load = "" if converted or chosen.name != "wegeft" else "import evoswarm.experts.wegeft  # for peft\n"
    dropped = f", {data['dropped_examples']} dropped, {data['cut_examples']} truncated"
    left_out = dropped if data["dropped_examples"] else ""
    return f"""---
{header}
---
# {name}

Trained by evoswarm with {chosen.name}{", saved as equivalent LoRA" if converted else ""}.

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
{load}from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{config.model}")
model = PeftModel.from_pretrained(base, folder)
```

All settings and the loss of every step are in training.json. Versions: {versions}.
"""
