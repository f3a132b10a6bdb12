"""The backend of mixes: asks every model once per split, then computes any row from what they said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self, cast

import numpy as np

from evoswarm.backend.base import Assembly, Backend, Counters, Evaluation, Job
from evoswarm.backend.mix.members import Member, Members, naming, run_over
from evoswarm.backend.mix.records import FOLDER, Answers, path_of, read_answers, write_answers
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.config import RunConfig
from evoswarm.engine.combined.rules import mixed, option_probabilities
from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility import Choose, OptionScore, Outcome, Split, Utility
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.members import MIXING
from evoswarm.weights.pool import Pool
from evoswarm.weights.save import save_best, save_vector
from evoswarm.weights.words import listed

Start = Callable[[RunConfig, Pool], Backend]
"""Starts the backend of a run over one model."""
Key = tuple[str, Split]
"""The place of a member, and what it is asked."""


class MixBackend:
    """Measures P(option) = sum_i c_i P_i(option), where P_i is model i's softmax over the options of a request.

    P_i is exact for any architecture and tokenizer: a model scores the text of an option. Coefficients c_i may be
    negative; the sum must be positive, so that the best option has a positive P.

    Source: Token Swarms, in Model Swarms (arXiv 2410.11163), for the options of a request.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        pool: Pool,
        utility: Utility,
        start: Start,
        root: Path | None = None,
        keep: bool = True,
        callbacks: Callbacks = SILENT,
    ) -> None:
        """Asks nothing yet.

        Args:
            config: the run.
            pool: the models.
            utility: what is measured; see `check_mix`.
            start: starts the backend of a run over one model.
            root: a run directory, with records of what models said and saved basis vectors; None: there is none.
            keep: whether it is this run's directory, so that records must fit and are written. Of another run, those
                that fit are used.
            callbacks: of the run.
        """
        self.counters = Counters()
        self._utility, self._start, self._callbacks = utility, start, callbacks
        self._members, self._names, self._base = Members(config, pool), pool.names, config.model
        self._folder, self._keep = None if root is None else root / FOLDER, keep
        self._materializer = Materializer(pool, root=root)
        self._known: dict[Key, Probabilities] = {}

    @property
    def mode(self) -> str | None:
        """See `Backend.mode`."""
        return None

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        weights = [self._weights(job.row) for job in jobs]
        needed: dict[Key, Member] = {}
        for job, mix in zip(jobs, weights, strict=True):
            needed |= {(member.place, job.split): member for member, value in mix if value}
        self._ask({key: member for key, member in needed.items() if key not in self._known})
        for job, mix in zip(jobs, weights, strict=True):
            yield self._evaluation(job, mix)

    def save_expert(self, row: Row, folder: Path) -> float | None:
        """See `Backend.save_expert`: models and coefficients."""
        return save_best(self._materializer, row, folder, base=self._base, rank=None)

    def save_vector(self, row: Row, path: Path) -> None:
        """See `Backend.save_vector`."""
        save_vector(self._materializer, row, path)

    def close(self) -> None:
        """See `Backend.close`."""

    def _weights(self, row: Row | None) -> list[tuple[Member, float]]:
        """The coefficient of each member in a row. The row of the base model is the reference alone."""
        if row is None or not row.terms:
            return [(self._members.reference, 1.0)]
        mixing = self._materializer.one(row)[MIXING].tolist()
        return [(self._members[name], value) for name, value in zip(self._names, mixing, strict=True)]

    def _ask(self, missing: Mapping[Key, Member]) -> None:
        """Read what was recorded, and ask the others: those that one engine serves together."""
        recorded = {key: self._recorded(member, key[1]) for key, member in missing.items()}
        self._known |= {key: Probabilities.of(answers) for key, answers in recorded.items() if answers is not None}
        unknown = {key: member for key, member in missing.items() if key not in self._known}
        done = 0
        for group in self._members.groups({member.place: member for member in unknown.values()}.values()):
            for member, split in self._answered(group, unknown):
                done += 1
                self._callbacks.message(f"model {member.name} answered {split} ({done} of {len(unknown)})")
                self._callbacks.check()

    def _answered(self, group: Sequence[Member], wanted: Collection[Key]) -> Iterator[tuple[Member, Split]]:
        """Start the engine of a group, and take in what it says, member by member."""
        self._callbacks.check()
        self._callbacks.message(f"asking {len(group)} model{'s' * (len(group) > 1)}: {listed([m.name for m in group])}")
        with naming(group[0]):
            config, pool, rows = run_over(group)
            splits = dict.fromkeys(split for _, split in wanted)
            jobs = {
                (member.place, split): Job((member.place, split), row, split, raw=True)
                for member, row in zip(group, rows, strict=True)
                for split in splits
                if (member.place, split) in wanted
            }
            with closing(self._start(config, pool)) as backend:
                by_place = {member.place: member for member in group}
                for found in backend.evaluate(list(jobs.values())):
                    place, split = cast(Key, found.key)
                    self._known[place, split] = Probabilities.of(self._taken(by_place[place], split, found))
                    yield by_place[place], split
                self._count(backend.counters)

    def _recorded(self, member: Member, split: Split) -> Answers | None:
        if self._folder is None:
            return None
        answers = read_answers(path := path_of(self._folder, member.place, split))
        if answers is None or answers.fingerprint == self._fingerprint(member, split):
            return answers
        if not self._keep:
            return None
        raise UserError(
            f"{path}: model {member.name}, its tokenizer, the prompts or the engine have changed since it was asked; "
            "restore them, or give the new run another `name`"
        )

    def _taken(self, member: Member, split: Split, found: Evaluation) -> Answers:
        """What a member said, which is recorded unless its engine failed."""
        size = self._utility.size(split)
        if not found.scores:
            return Answers("", [[]] * size, found.error)
        pairs = zip(found.scores, found.logprobs or [()] * size, strict=True)
        logprobs = [[] if score is None else list(values) for score, values in pairs]
        answers = _complete(Answers(self._fingerprint(member, split), logprobs, found.error), self._utility, split)
        if self._folder is not None and self._keep:
            write_answers(path_of(self._folder, member.place, split), answers)
        return answers

    def _fingerprint(self, member: Member, split: Split) -> str:
        return self._members.fingerprint(member, self._utility.requests(split))

    def _count(self, of: Counters) -> None:
        for field in fields(Counters):
            mine, theirs = getattr(self.counters, field.name), getattr(of, field.name)
            setattr(self.counters, field.name, mine + theirs)

    def _evaluation(self, job: Job, mix: list[tuple[Member, float]]) -> Evaluation:
        size = self._utility.size(job.split)
        assembly = Assembly(job, [tuple(range(size))], self._utility)
        assembly.add(0, self._outcomes(job.split, size, mix))
        return assembly.evaluation()

    def _outcomes(self, split: Split, size: int, mix: list[tuple[Member, float]]) -> list[Outcome]:
        total = sum(value for _, value in mix)
        if not total > 0:
            reason = f"the coefficients sum to {total:.3g}; a mix of probabilities needs a positive sum"
            return [Outcome(None, None, reason)] * size
        parts = [(value, member.name, self._known[member.place, split]) for member, value in mix if value]
        failed = {i: f"model {name}: {part.error}" for _, name, part in parts for i in part.failed}
        whole = [i for i in range(size) if i not in failed]
        coefficients = np.array([value for value, _, _ in parts])
        responses = [_response(mixed(np.stack([part.shares[i] for _, _, part in parts]), coefficients)) for i in whole]
        outcomes = dict(zip(whole, self._utility.outcomes(split, whole, responses), strict=True))
        return [outcomes[i] if i in outcomes else Outcome(None, None, failed[i]) for i in range(size)]


@dataclass(frozen=True)
class Probabilities:
    """What one model said on one split: by example, P(option) [options]; of failed examples nothing, and why."""

    shares: list[np.ndarray]
    error: str | None

    @classmethod
    def of(cls, answers: Answers) -> Self:
        """The softmax of log-probabilities."""
        return cls([option_probabilities(values) for values in answers.logprobs], answers.error)

    @property
    def failed(self) -> list[int]:
        """The examples that failed."""
        return [i for i, values in enumerate(self.shares) if not values.size]


def _response(probabilities: np.ndarray) -> list[OptionScore]:
    """Option scores of mixed probabilities [options]."""
    return [OptionScore(float(value), 1) for value in np.log(probabilities)]


def _complete(answers: Answers, utility: Utility, split: Split) -> Answers:
    """The answers themselves, after a check that they have a value for every option."""
    for values, request in zip(answers.logprobs, utility.requests(split), strict=True):
        assert isinstance(request, Choose)
        if values and len(values) != len(request.options):
            raise UserError("the utility gives no log-probabilities of its options, which a mix needs")
    return answers
