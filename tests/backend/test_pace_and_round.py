"""Who gets how much work, and what happens to it: the logic of a round, on a clock of the test's own."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from echo import echo_config, engine_made_by
from hypothesis import given, settings
from hypothesis import strategies as st

import evoswarm
from benchmarks.takeover import play
from evoswarm.backend.base import Job
from evoswarm.backend.local import ResidentWeights
from evoswarm.backend.pace import AHEAD, Pace
from evoswarm.backend.pieces import Done
from evoswarm.backend.round import Call, Round
from evoswarm.engine import ENGINES, EngineDied
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import ClusterError
from evoswarm.rows import Row
from evoswarm.utility import Outcome, Utility, make_utility

CUT = [(i,) for i in range(10)]


@pytest.fixture(scope="module")
def utility(tmp_path_factory: pytest.TempPathFactory) -> Utility:
    config = echo_config(tmp_path_factory.mktemp("echo"), "utility.data={path: echo.json, limit: 10}")
    return make_utility(config.utility, root=config.root)


def round_of(utility: Utility, jobs: int, *, workers: int, pace: Pace | None = None, **settings: Any) -> Round:
    work, pace = [Job(i, None) for i in range(jobs)], pace or Pace()
    return Round(work, utility=utility, cut=lambda split: CUT, workers=workers, pace=pace, **settings)


def pace_of(workers: int) -> Pace:
    pace = Pace()
    pace.join(workers)
    return pace


def right(call: Call) -> Done:
    return Done([[Outcome(1.0, "x")] for _ in call.work])


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(st.floats(0.5, 2), min_size=1, max_size=5), st.integers(1, 20), st.integers(1, 3))
def test_every_slice_is_done_once_whatever_the_speeds(utility, jobs, seconds, slices, together) -> None:  # type: ignore[no-untyped-def]
    size = {"slices_per_call": slices, "jobs_per_call": together}
    _, done, _ = play(round_of(utility, jobs, workers=len(seconds), **size), seconds)
    assert sum(done) == 10 * jobs


def sizes(calls: list[Call]) -> list[tuple[int, int]]:
    """The jobs and the slices of each call."""
    return [(len({job for job, _ in call.work}), len(call.work)) for call in calls]


def test_a_call_has_all_slices_of_a_job_while_there_is_plenty_of_work(utility: Utility) -> None:
    round = round_of(utility, 20, workers=2, slices_per_call=16)
    assert sizes(round.assign(now=0.0)) == [(1, 10)] * 2 * AHEAD


def test_the_rest_is_divided_evenly_when_there_are_more_workers_than_calls(utility: Utility) -> None:
    assert sizes(round_of(utility, 1, workers=4, slices_per_call=16).assign(now=0.0)) == [(1, 3)] * 3 + [(1, 1)]
    beside = round_of(utility, 8, workers=4, slices_per_call=400, jobs_per_call=40)
    assert sizes(beside.assign(now=0.0)) == [(2, 20)] * 4


def test_a_worker_counts_as_hung_after_a_multiple_of_its_usual_time() -> None:
    pace = pace_of(1)
    assert pace.patience(0, slices=40, limit=100) == AHEAD * 4000
    pace.began(0, now=0.0, slices=10)
    pace.ended(0, now=10.0, slices=10)
    assert pace.patience(0, slices=40, limit=100) == AHEAD * 500
    assert pace.patience(0, slices=1, limit=100) == AHEAD * 100


def test_two_runs_in_one_process_never_keep_two_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []

    class Counted(EchoEngine):
        def __init__(self) -> None:
            super().__init__()
            running.append(id(self))
            assert len(running) == 1

        def close(self) -> None:
            running.remove(id(self))

    monkeypatch.setitem(ENGINES, "fake", engine_made_by(Counted))
    for name in ("first", "second"):
        evoswarm.run(echo_config(tmp_path, f"name={name}"))
        assert not running


def test_workers_of_one_speed_end_together() -> None:
    pace = pace_of(4)
    assert pace.room(100, now=0.0) == [AHEAD] * 4
    assert pace.room(4, now=0.0) == [1, 1, 1, 1]
    assert sorted(pace.room(2, now=0.0)) == [0, 0, 1, 1]


def test_toward_the_end_a_slow_worker_leaves_the_last_slice_to_a_fast_one(utility: Utility) -> None:
    end, done, _ = play(round_of(utility, 4, workers=2), [1.0, 3.0])
    assert done == [30, 10] and end == 30.0


@pytest.mark.parametrize(("install", "end", "installs", "not_counted"), [(0, 7, 5, 7), (9, 19, 3, 25), (30, 40, 3, 67)])
def test_nobody_installs_a_particle_to_help_where_its_own_worker_ends_sooner(
    utility: Utility, install: float, end: float, installs: int, not_counted: float
) -> None:
    """Two particles of 10 slices of a second each, on three workers."""
    seconds = [1.0, 1.0, 1.0]
    ended, _, installed = play(round_of(utility, 2, workers=3), seconds, install=install)
    assert (ended, installed) == (end, installs)
    assert play(round_of(utility, 2, workers=3), seconds, install=install, report=False)[0] == not_counted


def test_a_round_starts_with_the_speeds_of_the_one_before(utility: Utility) -> None:
    pace = Pace()
    sizes = {"slices_per_call": 10, "pace": pace}
    assert play(round_of(utility, 2, workers=2, **sizes), [1.0, 9.0])[1] == [10, 10]
    assert play(round_of(utility, 1, workers=2, **sizes), [1.0, 9.0])[1] == [10, 0]


def test_no_worker_holds_back_a_slice_that_another_could_start() -> None:
    pace = pace_of(2)
    pace.began(0, now=0.0)
    pace.began(1, now=0.0)
    pace.ended(1, now=1.0)
    pace.ended(0, now=1.0)
    pace.began(0, now=1.0)
    assert pace.room(1, now=1.0) == [0, 1]


def test_a_worker_that_hangs_does_not_keep_the_last_slice_for_itself() -> None:
    pace = pace_of(2)
    for worker, seconds in ((0, 1.0), (1, 4.0)):
        pace.began(worker, now=0.0)
        pace.ended(worker, now=seconds)
    pace.began(0, now=4.0, slices=2)
    assert pace.room(1, now=4.5) == [0, 0]
    assert pace.room(1, now=60.0) == [0, 1]


def test_more_workers_than_particles_are_all_busy(utility: Utility) -> None:
    calls = round_of(utility, 2, workers=8).assign(now=0.0)
    assert {call.worker for call in calls} == set(range(8))


def test_a_worker_that_is_starting_again_gets_nothing(utility: Utility) -> None:
    round = round_of(utility, 2, workers=3)
    assert {call.worker for call in round.assign(now=0.0, absent={1})} == {0, 2}
    assert round_of(utility, 1, workers=1).assign(now=0.0, absent={0}) == []


def test_lost_slices_go_out_again_and_a_slice_that_is_lost_too_often_ends_the_round(utility: Utility) -> None:
    round = round_of(utility, 1, workers=1, retries=2)
    for _ in range(2):
        first, *rest = round.assign(now=0.0)
        assert first.work == ((0, 0),)
        for call in [first, *rest]:
            round.lost(call, "engine died: why", now=0.0)
    first, *_ = round.assign(now=0.0)
    with pytest.raises(ClusterError, match="lost 3 times with its worker .engine died: why"):
        round.lost(first, "engine died: why", now=0.0)


def test_a_lost_slice_of_a_failed_job_does_not_count(utility: Utility) -> None:
    round = round_of(utility, 1, workers=2, pace=Pace(ahead=1), retries=0)
    first, second = round.assign(now=0.0)
    assert round.done(first, Done(["RuntimeError: why"]), now=1.0)[0].error
    round.lost(second, "engine died", now=2.0)
    assert round.finished and not round.assign(now=3.0)


def test_slices_that_only_waited_for_a_lost_worker_are_not_counted_as_lost(utility: Utility) -> None:
    round = round_of(utility, 1, workers=1, retries=0)
    for _ in range(5):
        for call in round.assign(now=0.0):
            round.lost(call, None, now=0.0)
    assert play(round, [1.0])[1] == [10]


def test_workers_that_join_in_mid_round_get_work(utility: Utility) -> None:
    round = round_of(utility, 2, workers=1)
    assert {call.worker for call in round.assign(now=0.0)} == {0}
    round.join(3)
    assert {call.worker for call in round.assign(now=0.0)} == {1, 2}


def test_a_round_starts_each_job_at_its_home_worker(utility: Utility) -> None:
    round = round_of(utility, 3, workers=3, home=lambda job: 2 - job.key)
    first = {call.worker: round.jobs[call.work[0][0]].key for call in round.assign(now=0.0)}
    assert first == {0: 2, 1: 1, 2: 0}


def test_a_failed_job_gives_its_other_slices_up(utility: Utility) -> None:
    round = round_of(utility, 2, workers=1)
    call, other = round.assign(now=0.0)
    (evaluation,) = round.done(call, Done(["RuntimeError: why"]), now=1.0)
    assert evaluation.error == "RuntimeError: why" and evaluation.utility is None
    assert round.done(other, right(other), now=2.0) == []
    assert {work[0] for call in round.assign(now=2.0) for work in call.work} == {1}


def test_an_engine_that_dies_is_started_again_and_its_slice_done_again(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    untouched = evoswarm.run(echo_config(tmp_path, "name=untouched"))
    calls = itertools.count()

    class Dies(EchoEngine):
        """Dies in some calls, and then answers no more."""

        dead = False

        def generate(self, *args: Any, **settings: Any) -> list[str]:
            self.dead = self.dead or next(calls) % 20 == 7
            if self.dead:
                raise EngineDied("engine fake died: why")
            return super().generate(*args, **settings)

    monkeypatch.setitem(ENGINES, "fake", engine_made_by(Dies))
    summary = evoswarm.run(echo_config(tmp_path))
    assert next(calls) > 40 and summary["best"] == untouched["best"]
    Dies.dead = True
    with pytest.raises(ClusterError, match="lost 4 times with its worker .engine fake died: why"):
        evoswarm.run(echo_config(tmp_path, "name=other"))


def test_after_an_engine_died_the_local_backend_makes_what_is_needed_first() -> None:
    made: list[int] = []

    def make(rows: list[Row], into: list[Any]) -> list[Any]:
        made.append(len(rows))
        return [{} for _ in rows]

    materializer = SimpleNamespace(pool=SimpleNamespace(kind="adapter", nbytes=1), all=make)
    weights = ResidentWeights(materializer, most_bytes=3)  # type: ignore[arg-type]
    round: Any = SimpleNamespace(jobs=[Job(i, Row.one("a")) for i in range(10)], is_open=lambda index: True)
    assert weights.of(round, {0, 8, 9}).keys() == {0, 8, 9}
    assert weights.of(round, {8}).keys() == {0, 8, 9} and made == [3]
    assert weights.of(round, {1}).keys() == {1, 2, 3} and made == [3, 3]
