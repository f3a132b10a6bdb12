"""Search algorithms over coefficient rows. Pure numpy: they never see a tensor, a file, a clock or Ray."""

from __future__ import annotations

from collections.abc import Sequence

from evoswarm.search.base import Search
from evoswarm.search.bayes import BayesSearch
from evoswarm.search.cma_es import CmaEsSearch, EvolMergeSearch
from evoswarm.search.config import Evolution
from evoswarm.search.evogm import EvoGMSearch
from evoswarm.search.front import Front
from evoswarm.search.genome import GenomeSearch
from evoswarm.search.genome_plus import GenomePlusSearch
from evoswarm.search.lorahub import LoraHubSearch
from evoswarm.search.m2n2 import M2N2Search
from evoswarm.search.model_swarms import ModelSwarms, ModelSwarmsSearch
from evoswarm.search.nsga2 import Nsga2Search
from evoswarm.search.pareto_swarms import ParetoSwarmsSearch
from evoswarm.search.pso_merging import PsoMergingSearch
from evoswarm.search.random_search import RandomMixSearch
from evoswarm.search.soup import GreedySoupSearch, UniformSoupSearch
from evoswarm.search.state import Ask, Best, Member, Outcomes

SEARCHES: dict[str, type[Search]] = {
    "model_swarms": ModelSwarmsSearch,
    "genome": GenomeSearch,
    "genome_plus": GenomePlusSearch,
    "pso_merging": PsoMergingSearch,
    "m2n2": M2N2Search,
    "evogm": EvoGMSearch,
    "nsga2": Nsga2Search,
    "pareto_swarms": ParetoSwarmsSearch,
    "random_search": RandomMixSearch,
    "cma_es": CmaEsSearch,
    "evolmerge": EvolMergeSearch,
    "lorahub": LoraHubSearch,
    "bayes": BayesSearch,
    "greedy_soup": GreedySoupSearch,
    "uniform_soup": UniformSoupSearch,
}
"""Searches by the `type` of their config. To add one, write its file and add one line here."""


def make_search(config: Evolution, *, experts: Sequence[str], seed: int, layers: int | None = None) -> Search:
    """Create the search of a config; see `Search`."""
    return SEARCHES[config.type](config, experts=experts, seed=seed, layers=layers)


__all__ = [
    "SEARCHES",
    "Ask",
    "Best",
    "Evolution",
    "Front",
    "Member",
    "ModelSwarms",
    "Outcomes",
    "Search",
    "make_search",
]
