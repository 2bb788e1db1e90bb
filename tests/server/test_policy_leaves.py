"""Partitions and children are swept one by one, each as its owner."""

from __future__ import annotations

import pytest

from harness import Server, wait_until
from scenery import log
from scenery.policies import COLUMNS, add, alter, rows, shown, suspended, until_rows, watched, write


def test_partitions_are_reaped_each_as_its_owner(server: Server) -> None:
    server.execute(
        "CREATE ROLE a", "CREATE ROLE b", "CREATE ROLE trent",
        "CREATE TABLE diary (id text, who text)", "GRANT INSERT ON diary TO PUBLIC",
        "CREATE TABLE jobs (id text, due timestamptz, state text) PARTITION BY LIST (state)",
        "CREATE INDEX ON jobs (due)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.diary VALUES (OLD.id, current_user); RETURN OLD; END $$",
        "CREATE TRIGGER note BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION note()",
    )  # fmt: skip
    for leaf in "ab":
        server.execute(
            f"CREATE TABLE jobs_{leaf} PARTITION OF jobs FOR VALUES IN ('{leaf}')", f"ALTER TABLE jobs_{leaf} OWNER TO {leaf}"
        )
    add(server, "jobs", ttl="1 h")
    server.execute("ALTER TABLE jobs OWNER TO trent")
    for leaf in "ab":
        write(server, "jobs", f"dead {leaf}", due="-2 h", state=leaf)
        write(server, "jobs", f"live {leaf}", state=leaf)
    until_rows(server, "jobs", "live a", "live b")
    assert server.query("SELECT * FROM diary ORDER BY 1") == [("dead a", "a"), ("dead b", "b")]
    # A leaf that comes later is swept as well, one that leaves is not.
    server.execute("CREATE TABLE jobs_c PARTITION OF jobs DEFAULT", "ALTER TABLE jobs DETACH PARTITION jobs_a")
    write(server, "jobs_a", "left", due="-2 h", state="a")
    write(server, "jobs", "late", due="-2 h", state="z")
    until_rows(server, "jobs", "live b")
    assert rows(server, "jobs_a") == ["left", "live a"]


def test_the_filter_of_one_owner_is_never_run_with_the_rights_of_another(server: Server) -> None:
    # Mallory owns the parent, and wrote the filter. A leaf of somebody else's is deleted from as
    # its owner, who has not asked for her functions to be run.
    server.execute(
        "CREATE ROLE mallory LOGIN", "CREATE SCHEMA hers AUTHORIZATION mallory",
        "GRANT EXECUTE ON FUNCTION pg_reaper_add_policy TO mallory",
        "CREATE TABLE hers.diary (who text)", "GRANT ALL ON hers.diary TO PUBLIC", "GRANT USAGE ON SCHEMA hers TO PUBLIC",
    )  # fmt: skip
    server.execute(
        # What is not volatile may not write, but may call what does.
        "CREATE FUNCTION hers.does() RETURNS void LANGUAGE sql AS 'INSERT INTO hers.diary VALUES (current_user)'",
        "CREATE FUNCTION hers.evil(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN true; END $$",
        "CREATE TABLE hers.jobs (id text, due timestamptz, state text)",
        "CREATE TABLE hers.others (id text, due timestamptz, state text)",
        "CREATE INDEX ON hers.jobs (due)",
        user="mallory",
    )
    policy = add(server, "hers.jobs", filter="hers.evil(state)", user="mallory")
    server.execute("CREATE TABLE child () INHERITS (hers.jobs)")
    watched(server, "others")
    write(server, "hers.jobs", "own")
    write(server, "child", "not hers")
    write(server, "others", "dead")
    until_rows(server, "others")
    until_rows(server, "hers.jobs", "not hers")
    wait_until(lambda: log.failures(server.log(), "public.child"), bool, "the report")
    assert "another owner" in (suspended(server, policy) or "")
    assert {who for (who,) in server.query("SELECT who FROM hers.diary")} == {"mallory"}
    # Without a filter nobody's words are run.
    alter(server, policy, reset=["filter"])
    assert suspended(server, policy) is None
    until_rows(server, "hers.jobs")


def test_a_trigger_of_the_parent_that_no_delete_fires_suspends_nothing(server: Server) -> None:
    server.execute(
        "CREATE ROLE trent", "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "ALTER FUNCTION note OWNER TO trent", f"CREATE TABLE jobs ({COLUMNS}) PARTITION BY LIST (state)",
        "CREATE INDEX ON jobs (due)",
        "CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER off BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION note()",
        "ALTER TABLE jobs DISABLE TRIGGER off", "CREATE TABLE jobs_open PARTITION OF jobs DEFAULT",
        "ALTER TABLE jobs_open DISABLE TRIGGER off", "ALTER TABLE jobs OWNER TO trent",
    )  # fmt: skip
    policy = add(server, "jobs")
    assert suspended(server, policy) is None
    write(server, "jobs", "dead")
    until_rows(server, "jobs")


@pytest.mark.parametrize(
    "trigger",
    ["EXECUTE FUNCTION hers.evil()", "WHEN (hers.is_evil()) EXECUTE FUNCTION note()"],
    ids=["the function", "the condition"],
)
def test_the_triggers_of_one_owner_are_never_run_with_the_rights_of_another(server: Server, trigger: str) -> None:
    # Mallory owns the parent. An administrator makes a partition of it, which gets her triggers.
    server.execute(
        "CREATE ROLE mallory LOGIN", "CREATE SCHEMA hers AUTHORIZATION mallory",
        "GRANT EXECUTE ON FUNCTION pg_reaper_add_policy TO mallory",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
    )  # fmt: skip
    server.execute(
        "CREATE FUNCTION hers.does() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'mallory' THEN"
        " ALTER ROLE mallory SUPERUSER; END IF; END $$",
        "CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN OLD; END $$",
        "CREATE FUNCTION hers.is_evil() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM hers.does(); RETURN false; END $$",
        "CREATE TABLE hers.jobs (id text, due timestamptz, state text) PARTITION BY LIST (state)",
        "CREATE INDEX ON hers.jobs (due)",
        "CREATE TABLE hers.own PARTITION OF hers.jobs FOR VALUES IN ('open')",
        f"CREATE TRIGGER evil BEFORE DELETE ON hers.jobs FOR EACH ROW {trigger}",
        user="mallory",
    )
    policy = add(server, "hers.jobs", user="mallory")
    server.execute("CREATE TABLE hers.ours PARTITION OF hers.jobs FOR VALUES IN ('done')")
    write(server, "hers.jobs", "not hers", state="done")
    write(server, "hers.jobs", "own")
    until_rows(server, "hers.jobs", "not hers")
    wait_until(lambda: log.failures(server.log(), "hers.ours"), bool, "the report")
    assert "another owner" in (suspended(server, policy) or "")
    assert server.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'mallory'")
    server.execute("ALTER TABLE hers.ours OWNER TO mallory")
    until_rows(server, "hers.jobs")
    assert suspended(server, policy) is None


@pytest.mark.parametrize("whom", ["ours.mid", "ours.leaf"])
def test_the_triggers_of_a_table_further_above_are_not_run_with_the_rights_of_another_either(
    server: Server, whom: str
) -> None:
    # Between Mallory's table and the leaf there is one of the leaf's owner.
    server.execute("CREATE ROLE mallory LOGIN", "CREATE SCHEMA hers AUTHORIZATION mallory", "CREATE SCHEMA ours")
    server.execute(
        "CREATE FUNCTION hers.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN OLD; END $$",
        "CREATE TABLE hers.jobs (id text, due timestamptz, state text) PARTITION BY LIST (state)",
        "CREATE TRIGGER evil BEFORE DELETE ON hers.jobs FOR EACH ROW EXECUTE FUNCTION hers.evil()",
        user="mallory",
    )
    server.execute(
        "CREATE TABLE ours.mid (id text, due timestamptz, state text) PARTITION BY LIST (id)",
        "CREATE TABLE ours.leaf PARTITION OF ours.mid DEFAULT",
        "CREATE INDEX ON ours.mid (due)",
    )
    policy = add(server, whom)
    write(server, "ours.mid", "first")
    until_rows(server, "ours.mid")
    server.execute("ALTER TABLE hers.jobs ATTACH PARTITION ours.mid DEFAULT")
    write(server, "ours.mid", "kept")
    wait_until(lambda: log.failures(server.log(), "ours.leaf"), bool, "the report")
    assert "another owner" in (suspended(server, policy) or "")
    assert rows(server, "ours.mid") == ["kept"]
    assert server.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'mallory'")


def test_a_function_of_a_trigger_that_becomes_anothers_is_not_run_any_more(server: Server) -> None:
    server.execute(
        "CREATE ROLE mallory", "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
        f"CREATE TABLE jobs ({COLUMNS}) PARTITION BY LIST (state)", "CREATE INDEX ON jobs (due)",
        "CREATE TRIGGER note BEFORE DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TABLE ours PARTITION OF jobs DEFAULT", "ALTER TABLE jobs OWNER TO mallory",
    )  # fmt: skip
    add(server, "jobs")
    write(server, "jobs", "first")
    until_rows(server, "jobs")
    server.execute("ALTER FUNCTION note OWNER TO mallory; INSERT INTO jobs VALUES ('kept', now() - interval '1 s')")
    wait_until(lambda: log.failures(server.log(), "public.ours"), bool, "the report")
    assert rows(server, "jobs") == ["kept"]


def test_children_that_inherit_are_swept_with_their_parent(server: Server) -> None:
    watched(server, "jobs", filter="state = 'done'")
    # Their columns lie in another order.
    server.execute("CREATE TABLE child (extra int, state text, due timestamptz, id text)", "ALTER TABLE child INHERIT jobs")
    for table in ("jobs", "child"):
        write(server, table, f"dead {table}", state="done")
        write(server, table, f"live {table}")
    until_rows(server, "jobs", "live child", "live jobs")


def test_a_child_of_two_children_is_one_leaf(server: Server) -> None:
    policy = watched(server, "jobs", enabled=False)
    server.execute(
        "CREATE TABLE left_one () INHERITS (jobs)",
        "CREATE TABLE right_one () INHERITS (jobs)",
        "CREATE TABLE grandchild () INHERITS (left_one, right_one)",
    )
    write(server, "grandchild", "dead")
    assert shown(server, policy) == ["dead"]
    alter(server, policy, enabled=True)
    until_rows(server, "jobs")
