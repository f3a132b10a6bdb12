"""What a user must beat: the greedy soup, measured at the end of a run next to the base and the best expert."""

from __future__ import annotations

from dataclasses import dataclass

from evoswarm.loop.context import RunContext
from evoswarm.loop.journal import Journal, Key
from evoswarm.rows import Row
from evoswarm.search import Search, make_search
from evoswarm.search.soup import GreedySoup, GreedySoupSearch


@dataclass(frozen=True)
class Soup:
    """The greedy soup of a pool, and how many evaluations it took beyond those of the experts."""

    row: Row
    evaluations: int


def greedy_soup(context: RunContext, search: Search) -> Soup | None:
    """The greedy soup of a finished search's experts; None if the config does not want it, or if it is the winner."""
    if not context.config.references or isinstance(search, GreedySoupSearch):
        return None
    context.callbacks.message("measuring the greedy soup")
    soup = make_search(GreedySoup(), experts=search.experts, seed=context.config.seed)
    soup.ask()
    soup.tell(search.expert_utilities)
    soup.tell([])
    journal = Journal(context.directory, "soup")
    while soup.stop_reason is None:
        (row,) = soup.ask().rows
        key = Key(search.generation, "soup", soup.generation, "validation")
        journal.expect([key])
        jobs = {key: key.job(Row.of(soup.basis, row))}
        ((_, evaluation),) = journal.measure(context, jobs, finalists={key: "greedy_soup"})
        soup.tell([evaluation.utility])
    journal.close()
    best = soup.global_best
    assert best is not None
    return Soup(Row.of(soup.basis, best.row), soup.generation)
