"""WeGeFT (arXiv 2312.00700) as a tuner of peft. Importing this package makes peft know it.

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
    # peft's registry takes only members of its enumeration of methods, which has no way to be extended.
    member = str.__new__(PeftType, _NAME)
    member._name_ = member._value_ = _NAME
    type.__setattr__(PeftType, _NAME, member)
    PeftType._member_map_[_NAME] = PeftType._value2member_map_[_NAME] = member
    PeftType._member_names_.append(_NAME)
    register_peft_method(name=_NAME.lower(), config_cls=WeGeFTConfig, model_cls=WeGeFTModel)


if _NAME not in PeftType.__members__:
    _register()
