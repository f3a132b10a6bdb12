"""Do evolved experts transfer to other targets? Tests each winner on the targets that its search never saw.

Source: GENOME, section 4 (zero-shot transfer to unseen tasks). Targets share skills but no questions.
"""

from __future__ import annotations

import numpy as np

from evoswarm.toy import world
from evoswarm.weights.expert import read_json
from examples.common import By, Question, ask, dots


def tested(question: Question, source: str, seed: int) -> dict[str, By]:
    """Test scores on every other target: the base, the source's best expert, and the expert evolved on the source."""
    run_dir = question.run(source, question.config(source), seed=seed)
    expert = world() / "experts" / read_json(run_dir / "summary.json")["initial"]["best_expert"]
    folders = {"base": None, "best expert": expert, "evolved": run_dir / "best"}
    others = [target for target in question.targets if target != source]
    return {who: {t: question.test(t, folder)[None] for t in others} for who, folder in folders.items()}


def main() -> None:
    """Run the experiment."""
    question = ask("zero_shot", __doc__, targets=("office", "letters", "trio"))
    lines, gains = [], {}
    for source in question.targets:
        by_seed = [tested(question, source, seed) for seed in range(question.seeds)]
        joined = {
            who: {target: np.concatenate([found[who][target] for found in by_seed]) for target in by}
            for who, by in by_seed[0].items()
        }
        for target in joined["base"]:
            found = question.intervals({who: {target: by[target]} for who, by in joined.items()})
            over_expert = question.intervals({who: {target: joined[who][target]} for who in ("best expert", "evolved")})
            gains[f"{source} > {target}"] = found["evolved"][1]
            lines.append(
                {"evolved on > tested on": f"{source} > {target}"}
                | {who: utility for who, (utility, _) in found.items()}
                | {"over base": found["evolved"][1], "over best expert": over_expert["evolved"][1]}
            )
    question.close(lines, **dots(gains, label="gain over the base"))


if __name__ == "__main__":
    main()
