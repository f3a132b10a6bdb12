"""A surrogate of a model's outcomes on every validation example, as a function of the coefficients.

Source: composite Bayesian optimization, Astudillo & Frazier 2019 (arXiv 1906.01537). Shape legend: n measured rows, J
coefficients, E examples.
"""

from __future__ import annotations

from evoswarm.search.surrogate.model import Surrogate

__all__ = ["Surrogate"]
