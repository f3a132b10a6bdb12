"""Measures mixes of models by the probabilities of options: every model is asked once, and rows need no engine."""

from evoswarm.backend.mix.answers import require_answers, written_apart
from evoswarm.backend.mix.backend import MixBackend
from evoswarm.backend.mix.members import Member, Members, asked_apart, check_mix, mix_problem, naming, run_over

__all__ = [
    "Member",
    "Members",
    "MixBackend",
    "asked_apart",
    "check_mix",
    "mix_problem",
    "naming",
    "require_answers",
    "run_over",
    "written_apart",
]
