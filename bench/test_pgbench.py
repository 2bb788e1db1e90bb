"""Reading what pgbench logs."""

from __future__ import annotations

from bench.pgbench import parse


def test_latencies_come_with_the_time_of_their_end() -> None:
    assert list(parse(["0 1 2500 0 1700000000 250000 12"])) == [(1700000000.25, 2.5)]


def test_a_line_cut_short_or_of_no_transaction_is_left_out() -> None:
    assert list(parse(["0 1 skipped 0 1700000000 250000 12", "1 7 2500 0 17000", ""])) == []
