"""A coordinator ends itself only when the head has been silent for long."""

from __future__ import annotations

import socket

from evoswarm.launch.cut_off import TRIES, TRY_SECONDS, is_open, until_lost


def test_a_head_is_lost_when_it_is_silent_many_times_in_a_row() -> None:
    slept: list[float] = []
    answers = iter([*[False] * (TRIES - 1), True, *[False] * TRIES])
    until_lost(lambda: next(answers), sleep=slept.append)
    assert slept == [TRY_SECONDS] * 2 * TRIES and next(answers, None) is None


def test_a_head_answers_if_its_port_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_open(f"127.0.0.1:{port}")
    assert not is_open(f"127.0.0.1:{port}") and not is_open("no-such-host.invalid:1")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert is_open(f"[::1]:{server.getsockname()[1]}")
