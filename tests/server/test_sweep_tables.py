"""The sweep of adopted tables of every make."""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, wait_until
from scenery import log
from scenery.barriers import BY_HAND, COLUMNS, adopted, arm, count, ids, until_empty, until_left


def test_a_partitioned_table_is_swept_leaf_by_leaf(server: Server) -> None:
    columns = COLUMNS.replace("PRIMARY KEY", "NOT NULL")
    adopted(server, "public.jobs", columns, "PARTITION BY LIST (organization_id)")
    server.execute(
        "CREATE TABLE jobs_a PARTITION OF jobs FOR VALUES IN ('a')",
        "CREATE TABLE jobs_rest PARTITION OF jobs DEFAULT PARTITION BY HASH (execution_id)",
        "CREATE TABLE jobs_r0 PARTITION OF jobs_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE jobs_r1 PARTITION OF jobs_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO jobs SELECT 'n' || n, chr(97 + n % 3), 1, now() - interval '1 s' FROM generate_series(1, 60) n",
        "INSERT INTO jobs VALUES ('alive', 'a', 1, now() + interval '1 h'), ('alive too', 'b', 1, 'infinity')",
    )
    until_left(server, ["alive", "alive too"], "public.jobs")
    wait_until(
        lambda: {record["relation"] for _, record in log.orphans(server.log()).values()},
        lambda told: told == {"public.jobs_a", "public.jobs_r0", "public.jobs_r1"},
        "a line for each, under its leaf",
    )

    # A partition that comes later is swept as well.
    server.execute(
        "CREATE TABLE later PARTITION OF jobs FOR VALUES IN ('z')",
        "INSERT INTO jobs VALUES ('late', 'z', 1, now() - interval '1 s')",
    )
    until_left(server, ["alive", "alive too"], "public.jobs")


def test_a_broken_partition_does_not_keep_its_siblings_from_being_swept(server: Server) -> None:
    adopted(server, "public.jobs", COLUMNS.replace("PRIMARY KEY", "NOT NULL"), "PARTITION BY LIST (organization_id)")
    server.execute(
        "CREATE TABLE jobs_a PARTITION OF jobs FOR VALUES IN ('a')",
        "CREATE TABLE jobs_b PARTITION OF jobs FOR VALUES IN ('b')",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON jobs_a FOR EACH ROW EXECUTE FUNCTION refuse()",
        "INSERT INTO jobs SELECT org, org, 1, now() - interval '1 s' FROM unnest('{a,b}'::text[]) org",
    )
    until_left(server, ["a"], "public.jobs")


def test_children_that_inherit_are_swept_with_their_parent(server: Server) -> None:
    adopted(server, "public.jobs")
    server.execute(
        "CREATE TABLE child (extra int) INHERITS (jobs)",
        "CREATE TABLE grandchild () INHERITS (child)",
    )
    for table in ("jobs", "child", "grandchild"):
        arm(server, f"dead {table}", table=table)
        arm(server, f"live {table}", due="1 h", table=table)
    until_left(server, ["live child", "live grandchild", "live jobs"], "public.jobs")


def test_rows_of_a_table_that_is_not_adopted_are_left_alone(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    server.execute(f"CREATE TABLE jobs ({COLUMNS})")
    arm(server, "not ours", table="jobs")
    arm(server, "ours")
    assert server.value("SELECT pg_reaper_sweep()") == 1
    assert count(server, "jobs") == 1


def test_a_disowned_table_is_left_alone(make_server: Callable[..., Server]) -> None:
    server = make_server(BY_HAND)
    adopted(server, "public.jobs")
    arm(server, "old", table="jobs")
    server.query("SELECT pg_reaper_disown('jobs')")
    assert server.value("SELECT pg_reaper_sweep()") == 0
    assert ids(server, "jobs") == ["old"]


def test_names_that_look_like_sql_are_only_names(server: Server) -> None:
    table = '"we""ird; DROP TABLE pg_barrier_state; --"."it\'s a $1 ""table"""'
    server.execute('CREATE SCHEMA "we""ird; DROP TABLE pg_barrier_state; --"')
    adopted(server, table)
    arm(server, "dead", table=table)
    arm(server, "alive", due="1 h", table=table)
    until_left(server, ["alive"], table)
    assert log.until_told(server, "dead")["dead"][1]["relation"] == table
    server.query("SELECT pg_reaper_disown(%s::regclass)", [table])


def test_a_table_without_the_optional_columns_or_an_index_is_swept(server: Server) -> None:
    adopted(server, "public.bare", "execution_id text, expires_at timestamptz", index=False)
    server.execute("INSERT INTO bare VALUES ('dead', now()), (NULL, now()), ('alive', now() + interval '1 h')")
    until_left(server, ["alive"], "public.bare")
    orphans = log.until_told(server, "dead", None)
    assert orphans["dead"][1]["remaining"] is None
    assert orphans[None][0].startswith("reaped orphaned barrier (null): ")


def test_optional_columns_of_other_types_do_not_hinder(server: Server) -> None:
    columns = "execution_id text, organization_id uuid, remaining text, last_progress_at date, expires_at timestamptz"
    server.set(**{"pg_reaper.stuck_timeout": "1s"})
    adopted(server, "public.odd", columns)
    server.execute("INSERT INTO odd VALUES ('dead', gen_random_uuid(), 'many', '2020-01-01', now())")
    server.execute("INSERT INTO odd VALUES ('alive', gen_random_uuid(), 'many', '2020-01-01', 'infinity')")
    until_left(server, ["alive"], "public.odd")
    assert log.failures(server.log(), "public.odd") == []


def test_renaming_an_adopted_table_or_its_schema_changes_nothing(server: Server) -> None:
    server.execute("CREATE SCHEMA app")
    adopted(server, "app.jobs")
    server.execute("ALTER TABLE app.jobs RENAME TO chores", "ALTER SCHEMA app RENAME TO shop")
    arm(server, "dead", table="shop.chores")
    until_empty(server, "shop.chores")


def test_quoting_every_identifier_changes_nothing(make_server: Callable[..., Server]) -> None:
    # As some tools set it for all their sessions: types are then spelt in another way.
    server = make_server({"quote_all_identifiers": "on"})
    adopted(server, "public.jobs")
    arm(server, "dead", table="public.jobs")
    until_empty(server, "public.jobs")
    arm(server, "dead")
    until_empty(server)
