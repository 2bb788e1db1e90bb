"""Databases of other encodings: the worker reaps there as anywhere, and its log can be read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from harness import Server, wait_until
from harness.reaper import wait_for
from scenery import log
from scenery.tongues import ID, NAMES, ORGANISATION, TONGUES, Tongue, adopt, arm, left, settle

each_tongue = pytest.mark.parametrize("tongue", TONGUES, ids=NAMES)


def until_left(session, tongue: Tongue, ids: set[bytes]) -> None:
    wait_until(lambda: left(session, tongue), lambda now: now == ids, f"{ids} to be left")


def lines(server: Server, containing: str) -> list[str]:
    """The lines of the log with a text, each of which must be valid UTF-8."""
    found = [line for line in server.logfile.read_bytes().split(b"\n") if containing.encode() in line]
    return [line.decode() for line in found]


@each_tongue
def test_the_worker_reaps_whatever_the_names_and_ids(server: Server, tongue: Tongue) -> None:
    session = settle(server, tongue)
    before = wait_for(server, "leader", database="tongue")
    adopt(session, tongue)
    alive = arm(session, tongue, b"alive", b"1 h")
    for n in range(3):
        arm(session, tongue, b"dead %d" % n)
        until_left(session, tongue, {alive})
    # In no spite of errors, nor by starting again and again.
    after = wait_until(
        lambda: wait_for(server, "leader", database="tongue"), lambda row: row.rows_reaped == 3, "3 rows to be counted"
    )
    assert (after.pid, after.term, after.errors) == (before.pid, before.term, 0)
    assert "ERROR" not in server.log()


@each_tongue
def test_the_log_names_what_was_reaped_in_lines_that_can_be_read(server: Server, tongue: Tongue) -> None:
    session = settle(server, tongue)
    adopt(session, tongue)
    arm(session, tongue, b"dead")
    until_left(session, tongue, set())
    (line,) = wait_until(lambda: lines(server, "reaped orphaned barrier"), bool, "the line")
    (detail,) = wait_until(lambda: lines(server, '"execution_id"'), bool, "its detail")
    record = json.loads(detail.partition("DETAIL:  ")[2])
    if tongue.word.decode(errors="ignore").encode() == tongue.word or tongue.encoding != "SQL_ASCII":
        assert f'"dead {ID.decode()}{tongue.logged}"' in line
        assert f'organization "{ORGANISATION.decode()}{tongue.logged}"' in line
        word = tongue.text or tongue.word.decode()
        assert record["execution_id"] == f"dead {ID.decode()}{word}"
        assert record["organization_id"] == f"{ORGANISATION.decode()}{word}"
    else:
        # Bytes that are no text: nobody is told that they were some text.
        assert '"dead id gr' in line and line.isascii()
        assert record["execution_id"].startswith("dead id gr")


def test_two_ids_of_bytes_that_are_no_text_look_different_in_the_log(server: Server) -> None:
    session = settle(server, TONGUES[-1])
    adopt(session, TONGUES[-1])
    insert = b"INSERT INTO %b SELECT id, '', 1, now() - interval '1 s' FROM unnest(ARRAY['\xfe', '\xff', '\xfe\xff']) id"
    session.execute(insert % TONGUES[-1].table)
    until_left(session, TONGUES[-1], set())
    found = wait_until(lambda: log.orphans(server.log()), lambda now: len(now) == 3, "three different ids")
    assert len({message.partition(" (")[0] for message, _ in found.values()}) == 3


def refuse(session, tongue: Tongue) -> None:
    """No row of the table can be deleted, and why is said in its own words."""
    session.execute(
        b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
        b" 'message %b' USING DETAIL = 'detail %b', HINT = 'hint %b'; END $$" % ((tongue.word,) * 3)
    )
    session.execute(b"CREATE TRIGGER refuse BEFORE DELETE ON %b FOR EACH ROW EXECUTE FUNCTION refuse()" % tongue.table)


@each_tongue
def test_what_a_trigger_raises_is_told_in_its_own_words(server: Server, tongue: Tongue) -> None:
    server.set(**{"pg_reaper.quarantine_limit": 0})
    session = settle(server, tongue)
    refuse(session, tongue)
    adopt(session, tongue)
    kept = arm(session, tongue, b"kept")
    report = wait_until(lambda: lines(server, f"sweep of {tongue.logged_table} failed"), bool, "the report")[0]
    assert report.endswith(f": message {tongue.logged}")
    assert lines(server, "DETAIL:  SQLSTATE P0001")[0].endswith(f"detail {tongue.logged}")
    assert lines(server, "HINT:  hint")[0].endswith(f"hint {tongue.logged}")
    pid = wait_for(server, "leader", database="tongue").pid
    session.execute(b"DROP TRIGGER refuse ON %b" % tongue.table)
    until_left(session, tongue, set())
    assert kept not in left(session, tongue)
    assert wait_for(server, "leader", database="tongue").pid == pid


@each_tongue
def test_the_quarantine_has_keys_and_errors_as_they_are(server: Server, tongue: Tongue) -> None:
    session = settle(server, tongue)
    refuse(session, tongue)
    adopt(session, tongue)
    kept = arm(session, tongue, b"kept")
    query = "SELECT convert_to(key ->> 'execution_id', %s), convert_to(error, %s) FROM pg_reaper_quarantine"
    (found,) = wait_until(
        lambda: session.execute(query, [tongue.encoding] * 2).fetchall(), bool, "the row to be in quarantine"
    )
    assert found == (kept, b"message %b: detail %b" % (tongue.word, tongue.word))
    (line,) = wait_until(lambda: lines(server, "goes into quarantine"), bool, "its line")
    assert tongue.logged in line
    assert wait_for(server, "leader", database="tongue").errors == 0


@each_tongue
def test_the_functions_by_hand_speak_to_a_client_of_another_encoding(
    make_server: Callable[..., Server], tongue: Tongue
) -> None:
    if tongue.text is None:
        pytest.skip("no client can have SQL_ASCII converted")
    server = make_server({"pg_reaper.enabled": "off"})
    session = settle(server, tongue)
    alive = arm(session, tongue, b"alive", b"1 h")
    arm(session, tongue, b"dead")
    table = tongue.table.decode(tongue.encoding)
    # What it warns of, it warns of in the encoding of the client.
    session.execute(b'DROP INDEX "schema %b"."table %b_expires_at_idx"' % (tongue.word, tongue.word))
    with server.connect("tongue", client_encoding="UTF8") as client:
        said: list[str] = []
        client.add_notice_handler(lambda notice: said.append(f"{notice.message_primary} {notice.message_hint}"))
        client.execute("SELECT pg_reaper_adopt(%s)", [table])
        assert any("has no index" in message for message in said)
        assert client.execute("SELECT pg_reaper_sweep(%s)", [table]).fetchone() == (1,)
        client.execute("CREATE ROLE stranger")
        client.execute("GRANT EXECUTE ON FUNCTION pg_reaper_sweep TO stranger")
        client.execute("SET ROLE stranger")
        client.execute("SELECT pg_reaper_sweep()")
        assert any("passing over" in message for message in said)
        client.execute("RESET ROLE")
        client.execute("SELECT pg_reaper_disown(%s)", [table])
    assert left(session, tongue) == {alive}
    for message in said:
        if "schema" in message:
            assert tongue.text in message or tongue.logged in message, said


@each_tongue
def test_the_status_can_be_read_from_every_database(server: Server, tongue: Tongue) -> None:
    server.set(**{"pg_reaper.quarantine_limit": 0})
    session = settle(server, tongue)
    adopt(session, tongue)
    wait_for(server, "leader", database="tongue")
    session.execute(
        b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$"
    )
    session.execute(b"CREATE TRIGGER refuse BEFORE DELETE ON %b FOR EACH ROW EXECUTE FUNCTION refuse()" % tongue.table)
    arm(session, tongue, b"kept")
    row = wait_until(
        lambda: server.query("SELECT last_error FROM pg_reaper_status() WHERE database = 'tongue'"),
        lambda rows: rows and rows[0][0] is not None,
        "the error in the status",
    )
    assert "refused" in row[0][0]
    # And from within, where it must be text of that encoding.
    with server.connect("tongue", client_encoding="UTF8" if tongue.text else "SQL_ASCII") as client:
        (own,) = client.execute("SELECT last_error FROM pg_reaper_status() WHERE database = 'tongue'").fetchone()
    own = own if isinstance(own, str) else own.decode()
    assert "refused" in own
    if tongue.text:
        assert tongue.text in own or tongue.logged in own


@each_tongue
def test_a_lease_of_another_table_is_shared_whatever_its_name(server: Server, tongue: Tongue) -> None:
    session = settle(server, tongue)
    adopt(session, tongue)
    shared = b'public."lease %b"' % tongue.word
    session.execute(b"CREATE TABLE %b (id integer, leader text, acquired_at timestamptz)" % shared)
    session.execute(b"INSERT INTO %b VALUES (1, '', now())" % shared)
    session.execute(b"ALTER DATABASE tongue SET pg_reaper.lease_table = '%b'" % shared)
    before = wait_for(server, "leader", database="tongue")
    server.execute(f"SELECT pg_terminate_backend({before.pid})")
    leader = b"SELECT leader FROM %b" % shared
    wait_until(lambda: session.execute(leader).fetchone()[0], bool, "that lease to be taken")
    arm(session, tongue, b"dead")
    until_left(session, tongue, set())
    assert wait_for(server, "leader", database="tongue").errors == 0


def test_a_warning_of_a_trigger_is_not_taken_for_the_words_of_a_later_error(server: Server) -> None:
    tongue = TONGUES[1]
    session = settle(server, tongue)
    session.execute(
        b"CREATE FUNCTION murmur() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'murmur %b';"
        b" RETURN OLD; END $$" % tongue.word
    )
    session.execute(b"CREATE TRIGGER murmur BEFORE DELETE ON %b FOR EACH ROW EXECUTE FUNCTION murmur()" % tongue.table)
    adopt(session, tongue)
    arm(session, tongue, b"dead")
    until_left(session, tongue, set())
    # An error of no statement of ours: the table cannot be locked.
    with server.connect("tongue", client_encoding=tongue.encoding, autocommit=False) as holder:
        holder.execute(b"LOCK TABLE %b" % tongue.table)
        report = wait_until(lambda: lines(server, f"sweep of {tongue.logged_table} failed"), bool, "the report")[0]
    assert "murmur" not in report and "lock timeout" in report, report
