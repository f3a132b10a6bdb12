"""Research questions of the papers, asked on the toy world: `python -m examples.NAME`. See docs/results/questions.md."""
