"""Verdicts, tables, options, and the page made of them."""

from __future__ import annotations

import pytest

from bench import page
from bench.options import ALL_BARS, COMMITTED, TRIED, Options, parse
from bench.report import Report, Table, failed
from bench.verdict import AT_LEAST, AT_MOST, UNDER, Check


@pytest.mark.parametrize(
    ("relation", "measured", "met"),
    [
        (AT_LEAST, 1.2, True), (AT_LEAST, 1.19, False), (AT_MOST, 1.2, True), (AT_MOST, 1.21, False),
        (UNDER, 1.2, False), (UNDER, 1.1, True),
    ],
)  # fmt: skip
def test_a_bar_is_met_or_missed_at_its_very_edge(relation: str, measured: float, met: bool) -> None:
    check = Check(1, "speed", measured, relation=relation, limit=1.2)
    assert check.met is met
    assert check.verdict == ("met" if met else "missed")


def test_what_failed_is_not_met() -> None:
    assert failed(3, "probe", "the server fell over").checks[0].met is False
    assert Check(3, "probe", None, limit=10).verdict == "not measured"


def test_a_figure_without_a_bar_is_published() -> None:
    check = Check(7, "worst lateness", 812.3, "ms")
    assert (check.met, check.verdict, check.bar_text, check.measured_text) == (None, "published", "", "812 ms")


def test_markdown_tables_escape_what_would_end_a_cell() -> None:
    table = Table(("way", "rows/s"), [("a | b", "1")], "speed")
    assert table.markdown().splitlines() == ["**speed**", "", "| way | rows/s |", "| --- | ---: |", "| a \\| b | 1 |"]


def test_plain_tables_line_up() -> None:
    table = Table(("way", "rows/s"), [("bare", "1,000k"), ("a longer one", "9k")])
    assert table.plain().splitlines() == ["way           rows/s", "bare          1,000k", "a longer one      9k"]


def test_the_page_shows_verdicts_first_and_says_when_it_is_no_result() -> None:
    report = Report(2, "Old snapshot", "How.", [Check(2, "ratio", 0.5, limit=0.9)])
    report.plots["old-snapshot"], report.alt["old-snapshot"] = object(), "rows over time"
    text = page.render(Options(bars=(2,)), Table(("what", "value"), [("cores", "2")]), [report])
    assert "no results" in text
    assert "| 2 | ratio | at least 0.9 | 0.5 | missed |" in text
    assert text.index("## Verdict") < text.index("## Environment") < text.index("## 2. Old snapshot")
    assert "![rows over time](plots/old-snapshot.svg)" in text
    environment = Table(("what", "value"), [])
    assert "no results" not in page.render(Options(), environment, [report])
    shortened = page.render(Options(repetitions=3, idle_seconds=60), environment, [report])
    assert "3 repetitions where a whole one has 5" in shortened and "idle for 60 seconds" in shortened


@pytest.mark.parametrize("arguments", [["--bars=1,2"], ["--scale=0.5"], ["--repetitions=3"], ["--idle-seconds=60"]])
def test_only_a_whole_run_writes_over_the_committed_results(arguments: list[str]) -> None:
    assert parse(arguments).folder == TRIED
    assert parse([]).folder == parse(["--bars="]).folder == COMMITTED


def test_options_are_checked_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("--bars=9", "--bars=one", "--scale=0", "--scale=2", "--repetitions=0", "--idle-seconds=0"):
        with pytest.raises(SystemExit):
            parse([wrong])
    assert "there is no bar 9" in capsys.readouterr().err


def test_a_scaled_run_scales_rows_and_times_within_reason() -> None:
    options = parse(["--scale=0.01", "--bars=8,1,1"])
    assert options.bars == (1, 8)
    assert options.rows(1_000_000) == 10_000
    assert options.seconds(60) == 5
    assert options.seconds(3) == 3
    assert options.idle_seconds == 6
    assert parse([]).bars == ALL_BARS
