"""Which random factors of Model Swarms help? Ablates each one, then all of them.

Source: Model Swarms, section 5: 23.5 % worse without randomness.
"""

from __future__ import annotations

from typing import Any

from examples.common import EXPERTS, ask, dots

CONDITIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "first velocity 0": {"velocity": "zero"},
    "first velocity to the best": {"velocity": "best"},
    "no random weights": {"weight_randomness": False},
    "no random children": {"population": EXPERTS},
    "none of them": {"velocity": "zero", "weight_randomness": False, "population": EXPERTS},
}
"""As published: ten experts and ten random children, random first velocities, r ~ U(0, 1) in every term."""


def main() -> None:
    """Run the experiment."""
    question = ask("randomness", __doc__)
    runs = {
        name: question.runs(name.replace(" ", "-"), **({"population": 2 * EXPERTS} | search))
        for name, search in CONDITIONS.items()
    }
    found = question.utilities(runs)
    lines = [
        {"random factors": name, "test utility": utility, "over published": gain}
        for name, (utility, gain) in found.items()
    ]
    question.close(lines, **dots({name: utility for name, (utility, _) in found.items()}, label="test utility"))


if __name__ == "__main__":
    main()
