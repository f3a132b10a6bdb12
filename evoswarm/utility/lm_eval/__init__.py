"""Tasks of lm-evaluation-harness (Gao et al., 2024) as utilities."""
