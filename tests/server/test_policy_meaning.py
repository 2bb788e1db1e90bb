"""The words of a policy, and what they stand for: names that change hands while the words stay the same."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from harness import Server, wait_until
from harness.reaper import wait_for, wait_for_cycles
from scenery import log
from scenery.busy import Brake
from scenery.policies import add, alter, change_while_it_waits, rows, shown, suspended, sweep, until_rows, watched, write

SCENE = (
    "CREATE TYPE mood AS ENUM ('done', 'open')",
    "CREATE DOMAIN word AS text",
    "CREATE FUNCTION over(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done'",
    "CREATE FUNCTION under(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 <> 'done'",
    "CREATE DOMAIN other_word AS text",
    "CREATE COLLATION one FROM \"C\"",
    "CREATE COLLATION other FROM \"POSIX\"",
    "CREATE TEXT SEARCH CONFIGURATION one (COPY = simple)",
    "CREATE TEXT SEARCH CONFIGURATION other (COPY = simple)",
    "CREATE TEXT SEARCH DICTIONARY one (TEMPLATE = simple)",
    "CREATE TEXT SEARCH DICTIONARY other (TEMPLATE = simple)",
    "CREATE FUNCTION of_few(integer) RETURNS mood IMMUTABLE LANGUAGE sql RETURN 'done'::mood",
    "CREATE FUNCTION of_more(integer) RETURNS mood IMMUTABLE LANGUAGE sql RETURN 'open'::mood",
    "CREATE CAST (integer AS mood) WITH FUNCTION of_few(integer)",
    "CREATE OPERATOR =~~= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
    "CREATE TABLE jobs (id text, due timestamptz, later timestamptz DEFAULT 'infinity', state text, was text,"
    " mood mood)",
    "CREATE INDEX ON jobs (due)",
    "CREATE INDEX ON jobs (later)",
)
KEPT = "INSERT INTO jobs VALUES ('kept', now() - interval '1 s', 'infinity', 'open', 'done', 'open')"
DEAD = "INSERT INTO jobs VALUES ('dead', now() - interval '1 s', 'infinity', 'done', 'open', 'done')"


def swapped(what: str, one: str, other: str) -> str:
    """Two names that change hands."""
    return "; ".join(what.format(*pair) for pair in ((one, "aside"), (other, one), ("aside", other)))


# Filters that leave out the row to be kept, and what makes the same words take it.
FILTERS = {
    "columns": ("state = 'done'", swapped("ALTER TABLE jobs RENAME {} TO {}", "state", "was")),
    "functions": ("over(state)", swapped("ALTER FUNCTION {}(text) RENAME TO {}", "over", "under")),
    "labels": ("mood = 'done'", swapped("ALTER TYPE mood RENAME VALUE '{}' TO '{}'", "done", "open")),
    "an operator": (
        "state =~~= 'done'",
        "DROP OPERATOR =~~= (text, text); CREATE OPERATOR =~~= (LEFTARG = text, RIGHTARG = text, FUNCTION = textne)",
    ),
    "domains": ("state::word = 'done'", swapped("ALTER DOMAIN {} RENAME TO {}", "word", "other_word")),
    "collations": (
        "state COLLATE one = 'done' COLLATE one", swapped("ALTER COLLATION {} RENAME TO {}", "one", "other")
    ),
    "a cast": (
        "length(was)::mood = 'done'",
        "DROP CAST (integer AS mood); CREATE CAST (integer AS mood) WITH FUNCTION of_more(integer)",
    ),
    "configurations": (
        "to_tsvector('one', state) @@ to_tsquery('one', 'done')",
        swapped("ALTER TEXT SEARCH CONFIGURATION {} RENAME TO {}", "one", "other"),
    ),
    "dictionaries": (
        "ts_lexize('one', state) = '{done}'", swapped("ALTER TEXT SEARCH DICTIONARY {} RENAME TO {}", "one", "other")
    ),
    "a column made anew": (
        "state = 'done'",
        "ALTER TABLE jobs DROP state; ALTER TABLE jobs ADD state text DEFAULT 'done'",
    ),
    "a function made anew": (
        "over(state)",
        "DROP FUNCTION over(text);"
        " CREATE FUNCTION over(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 <> 'done'",
    ),
    "another type": ("state = 'done'", "ALTER TABLE jobs ALTER state TYPE varchar USING was"),
}
each_filter = pytest.mark.parametrize(("words", "change"), FILTERS.values(), ids=FILTERS)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    server = make_server({"pg_reaper.interval": "50ms"})
    server.execute(*SCENE)
    return server


def told(server: Server, policy: int) -> log.Entry:
    """What the worker has said of the policy's words."""
    saying = f"policy {policy} "
    reports = wait_until(
        lambda: [entry for entry in log.failures(server.log(), "public.jobs") if saying in entry.message],
        bool, "the report",
    )  # fmt: skip
    assert reports[0].detail == "SQLSTATE 55000."
    return reports[0]


@each_filter
def test_a_filter_that_means_something_else_reaps_nothing(server: Server, words: str, change: str) -> None:
    policy = add(server, "jobs", filter=words)
    other = watched(server, "others")
    server.execute(DEAD)
    until_rows(server, "jobs")
    server.execute("BEGIN", KEPT, change, "COMMIT")
    write(server, "others", "dead")
    until_rows(server, "others")
    report = told(server, policy)
    assert f"the filter of policy {policy} means something else for table public.jobs" in report.message
    assert f"pg_reaper_alter_policy({policy}, filter => " in report.hint
    assert rows(server, "jobs") == ["kept"]
    assert "means something else" in (suspended(server, policy) or "")
    assert suspended(server, other) is None
    for asked in (sweep, shown):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="means something else"):
            asked(server, policy)
    # Nothing that says less than what is meant now is taken for it.
    for setting in ({"batch_size": 7}, {"expires_column": "due"}, {"enabled": True}):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="means something else"):
            alter(server, policy, **setting)
    alter(server, policy, filter=words)
    assert suspended(server, policy) is None
    server.execute("INSERT INTO jobs (id, due, state, was) SELECT 'more', due, was, state FROM jobs")
    until_rows(server, "jobs", *(name for (name,) in server.query(f"SELECT id FROM jobs WHERE ({words}) IS NOT TRUE")))


@pytest.mark.parametrize("name", ["columns", "functions", "labels"])
def test_names_that_are_given_back_mean_what_they_meant(server: Server, name: str) -> None:
    words, change = FILTERS[name]
    policy = add(server, "jobs", filter=words)
    server.execute(KEPT)
    wait_for_cycles(server)
    server.execute(change)
    told(server, policy)
    server.execute(change, DEAD)
    until_rows(server, "jobs", "kept")
    assert suspended(server, policy) is None


@pytest.mark.parametrize("name", ["columns", "labels"])
def test_a_change_that_no_worker_has_seen_is_seen_by_the_next(server: Server, name: str) -> None:
    words, change = FILTERS[name]
    policy = add(server, "jobs", filter=words)
    server.execute(DEAD)
    until_rows(server, "jobs")
    server.set(**{"pg_reaper.enabled": "off"})
    wait_for(server, "disabled")
    server.execute(KEPT, change)
    server.restart()
    server.set(**{"pg_reaper.enabled": "on"})
    told(server, policy)
    assert rows(server, "jobs") == ["kept"]


@pytest.mark.parametrize(
    "change",
    [
        swapped("ALTER TABLE jobs RENAME {} TO {}", "due", "later"),
        "ALTER TABLE jobs DROP later; ALTER TABLE jobs ADD later timestamptz DEFAULT now()",
    ],
    ids=["swapped", "made anew"],
)
def test_a_deadline_that_another_column_has_taken_the_name_of_reaps_nothing(server: Server, change: str) -> None:
    policy = add(server, "jobs", "later")
    server.execute(KEPT)
    wait_for_cycles(server)
    server.execute(change)
    report = told(server, policy)
    assert "was given another column" in (suspended(server, policy) or "")
    assert f'policy {policy} was given another column "later"' in report.message
    assert f"pg_reaper_alter_policy({policy}, expires_column => 'later')" in report.hint
    assert rows(server, "jobs") == ["kept"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was given another column"):
        alter(server, policy, filter="state = 'open'")
    alter(server, policy, expires_column="later")
    until_rows(server, "jobs")


def test_where_both_have_changed_hands_both_are_to_be_given(server: Server) -> None:
    policy = add(server, "jobs", "later", filter="state = 'done'")
    both_swapped = [FILTERS["columns"][1], swapped("ALTER TABLE jobs RENAME {} TO {}", "due", "later")]
    server.execute("BEGIN", *both_swapped, "COMMIT")
    report = told(server, policy)
    assert f"pg_reaper_alter_policy({policy}, expires_column => 'later', filter => '…')" in report.hint
    for one in ({"expires_column": "later"}, {"filter": "state = 'done'"}):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            alter(server, policy, **one)
    alter(server, policy, expires_column="later", filter="state = 'done'")
    assert suspended(server, policy) is None


def test_who_gives_the_words_anew_with_the_change_has_no_failure(server: Server) -> None:
    policy = add(server, "jobs", filter="state = 'done'")
    server.execute(DEAD)
    until_rows(server, "jobs")
    anew = f"SELECT pg_reaper_alter_policy({policy}, filter => $$was = 'done'$$)"
    change_while_it_waits(server, "jobs", f"{FILTERS['columns'][1]}; {anew}")
    server.execute("INSERT INTO jobs (id, due, state) VALUES ('kept', now(), 'done')")
    server.execute("INSERT INTO jobs (id, due, was) VALUES ('dead', now(), 'done')")
    until_rows(server, "jobs", "kept")
    assert log.failures(server.log(), "public.jobs") == []


def test_longer_values_mean_the_same(server: Server) -> None:
    server.execute("ALTER TABLE jobs ADD short varchar(4) DEFAULT 'done'")
    policy = add(server, "jobs", filter="short = 'done'")
    server.execute("ALTER TABLE jobs ALTER short TYPE varchar(40)")
    alter(server, policy, batch_size=7)
    assert suspended(server, policy) is None
    write(server, "jobs", "dead")
    until_rows(server, "jobs")


def test_what_is_kept_is_the_same_when_it_is_spelt_out_again(server: Server) -> None:
    filter = "state IN ('done', 'over') AND (was BETWEEN 'a' AND 'z' OR mood = 'done' AND NOT id LIKE 'x%')"
    policy = add(server, "jobs", filter=filter)
    kept = "SELECT filter, meaning FROM pg_reaper_policy WHERE id = %s"
    before = server.query(kept, [policy])
    for size in (7, 8):
        alter(server, policy, batch_size=size)
    assert server.query(kept, [policy]) == before


def test_a_label_that_is_no_more_is_the_fault_of_no_row(server: Server) -> None:
    policy = add(server, "jobs", filter="mood = 'done'")
    server.execute("BEGIN", KEPT, DEAD, "ALTER TYPE mood RENAME VALUE 'done' TO 'over'", "COMMIT")
    (report, *_) = wait_until(lambda: log.failures(server.log(), "public.jobs"), bool, "the report")
    assert 'invalid input value for enum public.mood: "done"' in report.message
    assert report.detail == "SQLSTATE 42P17."
    assert "filter of table public.jobs cannot be used" in (suspended(server, policy) or "")
    assert server.value("SELECT count(*) FROM pg_reaper_quarantine") == 0
    assert rows(server, "jobs") == ["dead", "kept"]


def test_a_change_that_a_sweep_has_waited_for_is_seen_by_it(server: Server) -> None:
    policy = add(server, "jobs", filter="state = 'done'")
    server.execute(DEAD)
    until_rows(server, "jobs")
    kept = KEPT.replace("'open', 'done'", "'done', 'open'", 1)
    change_while_it_waits(server, "jobs", f"{FILTERS['columns'][1]}; {kept}")
    told(server, policy)
    assert rows(server, "jobs") == ["kept"]


@pytest.mark.parametrize("by_hand", [False, True], ids=["the worker", "by hand"])
def test_a_batch_under_way_when_a_function_changes_hands_is_taken_back(server: Server, by_hand: bool) -> None:
    """It may have been planned before or after."""
    policy = add(server, "jobs", filter="over(state)", enabled=not by_hand)
    brake = Brake(server, "jobs")
    server.execute(DEAD)
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with ThreadPoolExecutor() as pool:
        if by_hand:
            server.set(**{"pg_reaper.enabled": "off"})
            wait_for(server, "disabled")
            alter(server, policy, enabled=True)
            swept = pool.submit(sweep, server, policy)
        wait_until(lambda: server.value(asleep), bool, "the batch to be under way")
        server.execute(FILTERS["functions"][1])
        brake.release()
        if by_hand:
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="means something else"):
                swept.result()
        else:
            told(server, policy)
    assert rows(server, "jobs") == ["dead"]


@pytest.mark.parametrize("kind", ["partition", "child"])
def test_leaves_whose_columns_stand_elsewhere_have_those_of_the_watched_table(server: Server, kind: str) -> None:
    if kind == "partition":
        server.execute("CREATE TABLE all_jobs (id text, due timestamptz, state text, was text) PARTITION BY LIST (id)")
    else:
        server.execute("CREATE TABLE all_jobs (id text, due timestamptz, state text, was text)")
    server.execute(
        "CREATE TABLE dead (gone int, was text, more int, state text, due timestamptz, id text)",
        "ALTER TABLE dead DROP gone, DROP more",
        f"ALTER TABLE {'all_jobs ATTACH PARTITION dead DEFAULT' if kind == 'partition' else 'dead INHERIT all_jobs'}",
        "CREATE INDEX ON dead (due)",
    )
    policy = add(server, "all_jobs", filter="state = 'done'")
    write(server, "dead", "first", state="done")
    until_rows(server, "all_jobs")
    server.execute(
        swapped("ALTER TABLE all_jobs RENAME {} TO {}", "state", "was"),
        "INSERT INTO dead (id, due, was, state) VALUES ('kept', now(), 'open', 'done')",
    )
    wait_until(lambda: log.failures(server.log(), "public.dead"), bool, "the report")
    assert rows(server, "all_jobs") == ["kept"]
    assert "means something else for table public" in (suspended(server, policy) or "")


def test_a_column_that_only_a_child_has_left_is_none_of_the_filter(server: Server) -> None:
    server.execute(
        "CREATE TABLE parent (id text, due timestamptz, state text)",
        "CREATE TABLE child () INHERITS (parent)",
        "CREATE INDEX ON child (due)",
    )
    policy = add(server, "parent", filter="state = 'done'")
    server.execute("ALTER TABLE ONLY parent DROP state")
    write(server, "child", "kept", state="done")
    wait_until(lambda: log.failures(server.log(), "public.child"), bool, "the report")
    assert rows(server, "child") == ["kept"]
    assert suspended(server, policy) is not None


def test_what_is_changed_by_hand_is_not_taken_for_what_was_given(server: Server) -> None:
    policy = add(server, "jobs", filter="state = 'done'")
    server.execute(KEPT)
    server.execute(f"UPDATE pg_reaper_policy SET filter = 'state = ''open''' WHERE id = {policy}")
    told(server, policy)
    assert rows(server, "jobs") == ["kept"]
    # As if it came from another server.
    server.execute(f"UPDATE pg_reaper_policy SET meaning = NULL WHERE id = {policy}")
    until_rows(server, "jobs")
    wait_until(lambda: server.value("SELECT meaning FROM pg_reaper_policy WHERE id = %s", [policy]), bool, "a meaning")
