"""The papers' research questions on the toy world: `python -m examples.NAME`. See docs/results/questions.md."""
