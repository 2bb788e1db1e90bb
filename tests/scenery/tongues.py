"""Databases whose text is not all ASCII, in several encodings, and in none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from harness import Server

SCHEMA, TABLE, COLUMN, ID, ORGANISATION = b"schema ", b"table ", b"column ", b"id ", b"organisation "


@dataclass(frozen=True)
class Tongue:
    """An encoding, and a word in it that is not all ASCII."""

    encoding: str
    word: bytes
    # How the log spells the word. Where the database is not UTF-8, the log is kept to ASCII.
    logged: str
    # How a client of UTF-8 reads the word; None: it cannot.
    text: str | None

    @property
    def table(self) -> bytes:
        """The name of the table, qualified and quoted."""
        return b'"%b"."%b"' % (SCHEMA + self.word, TABLE + self.word)

    @property
    def logged_table(self) -> str:
        """The same as the log has it."""
        return f'"{SCHEMA.decode()}{self.logged}"."{TABLE.decode()}{self.logged}"'


WORD = "größe é"
JAPANESE = "表ソ日本"

TONGUES = [
    Tongue("UTF8", WORD.encode(), WORD, WORD),
    Tongue("LATIN1", WORD.encode("latin1"), r"gr\u00f6\u00dfe \u00e9", WORD),
    Tongue("EUC_JP", JAPANESE.encode("euc_jp"), r"\u8868\u30bd\u65e5\u672c", JAPANESE),
    Tongue("SQL_ASCII", WORD.encode(), r"gr\u00f6\u00dfe \u00e9", None),
    # Bytes that are no UTF-8.
    Tongue("SQL_ASCII", WORD.encode("latin1"), r"gr\xf6\xdfe \xe9", None),
]
NAMES = ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII of UTF-8", "SQL_ASCII of bytes"]


def settle(server: Server, tongue: Tongue, database: str = "tongue") -> psycopg.Connection[Any]:
    """Makes a database of that encoding, with the extension and a table to watch; a session in it
    that says bytes as they are."""
    # A name that is not ASCII is kept as the session sends it: as UTF-8.
    server.execute(f"CREATE DATABASE \"{database}\" ENCODING '{tongue.encoding}' LOCALE 'C' TEMPLATE template0")
    session = server.connect(database, client_encoding=tongue.encoding)
    session.execute("CREATE EXTENSION pg_reaper")
    session.execute(b'CREATE SCHEMA "%b"' % (SCHEMA + tongue.word))
    session.execute(
        b"CREATE TABLE %b (execution_id text PRIMARY KEY, organization_id text NOT NULL DEFAULT '',"
        b' remaining integer NOT NULL DEFAULT 1, expires_at timestamptz NOT NULL, "%b" text)'
        % (tongue.table, COLUMN + tongue.word)
    )
    session.execute(b"CREATE INDEX ON %b (expires_at)" % tongue.table)
    return session


def adopt(session: psycopg.Connection[Any], tongue: Tongue) -> None:
    """Has the table watched."""
    session.execute(b"SELECT pg_reaper_adopt('%b')" % tongue.table)


def arm(session: psycopg.Connection[Any], tongue: Tongue, name: bytes, due: bytes = b"-1 s") -> bytes:
    """Arms a barrier whose id, organisation and payload hold the word; its id."""
    execution_id = name + b" " + ID + tongue.word
    session.execute(
        b"INSERT INTO %b VALUES ('%b', '%b', 1, now() + interval '%b', '%b')"
        % (tongue.table, execution_id, ORGANISATION + tongue.word, due, tongue.word)
    )
    return execution_id


def left(session: psycopg.Connection[Any], tongue: Tongue) -> set[bytes]:
    """The ids that are left, as bytes."""
    # Through bytea, since what is no text cannot be read as such.
    rows = session.execute(b"SELECT convert_to(execution_id, '%b') FROM %b" % (tongue.encoding.encode(), tongue.table))
    return {name for (name,) in rows}
