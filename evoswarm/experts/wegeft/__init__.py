"""WeGeFT (arXiv 2312.00700) as a peft tuner. Importing this package registers it with peft.

Example:
    from evoswarm.experts.wegeft import WeGeFTConfig

    model = get_peft_model(base, WeGeFTConfig(r=64, wegeft_alpha=128))
    model.save_pretrained("expert")
"""

from __future__ import annotations

from peft.utils import PeftType, register_peft_method

from evoswarm.experts.wegeft.config import WeGeFTConfig
from evoswarm.experts.wegeft.layer import WeGeFTLinear
from evoswarm.experts.wegeft.model import WeGeFTModel

__all__ = ["WeGeFTConfig", "WeGeFTLinear", "WeGeFTModel"]
_NAME = "WEGEFT"


def _register() -> None:
    # peft's registry accepts only members of the PeftType enum, which cannot be extended in a regular way.
    member = str.__new__(PeftType, _NAME)
    member._name_ = member._value_ = _NAME
    type.__setattr__(PeftType, _NAME, member)
    PeftType._member_map_[_NAME] = PeftType._value2member_map_[_NAME] = member
    PeftType._member_names_.append(_NAME)
    register_peft_method(name=_NAME.lower(), config_cls=WeGeFTConfig, model_cls=WeGeFTModel)


if _NAME not in PeftType.__members__:
    _register()
