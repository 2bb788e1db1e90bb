"""The stories of rows under a policy."""

from __future__ import annotations

import random

from chaos.row_writers import BAD_FOR_LONG, RATE, STORIES, story
from chaos.rows import HELD_UP_SECONDS
from chaos.tables import TABLES

TOLD = [story(random.Random(n)) for n in range(500)]


def test_each_story_begins_with_its_row() -> None:
    assert all(stages[0][1].startswith("insert") and stages[0][2] > 0 for stages in TOLD)


def test_every_bad_row_is_mended_when_its_time_is_over() -> None:
    bad = [stages for stages in TOLD if stages[0][1] != "insert"]
    assert {stages[0][1] for stages in bad} == {"insert bad", "insert crowd"}
    for stages in bad:
        wait = sum(seconds for seconds, _, _ in stages)
        assert stages[-1][1] == "mend"
        assert wait > stages[0][2] + stages[-1][2], "nothing is to be mended yet"


def test_bad_rows_are_few() -> None:
    assert 0.05 < sum(stages[0][1] != "insert" for stages in TOLD) / len(TOLD) < 0.3
    assert sum(STORIES.values()) == 100


def test_there_is_always_a_row_that_would_hold_up_good_ones_for_too_long() -> None:
    assert BAD_FOR_LONG[0] > HELD_UP_SECONDS
    assert RATE * STORIES["bad for long"] / sum(STORIES.values()) * BAD_FOR_LONG[0] > 2


def test_each_kind_of_change_is_one_statement_with_its_line_in_the_journal() -> None:
    for table in TABLES:
        for kind in {what for stages in TOLD for _, what, _ in stages} - {
            "insert",
            "insert bad",
            "insert crowd",
            "mend",
        }:
            statement = table.change(kind)
            assert statement.count(f"public.{table.name}") == 1
            assert "chaos.row_op" in statement
