"""A worker that is deep in a batch, for as long as a test likes."""

from __future__ import annotations

from harness import Server, wait_until

# Nothing but the fault under test ends a batch soon: left alone it may take 200 s.
UNHURRIED = {
    "pg_reaper.interval": "100ms",
    "pg_reaper.lease_duration": "600s",
    "pg_reaper.lock_timeout": "150s",
    "deadlock_timeout": "200ms",
}

BUILTIN = "public.pg_barrier_state"


class Brake:
    """Holds up whoever deletes from a table, in a trigger before each row, until released."""

    def __init__(self, server: Server, table: str = BUILTIN) -> None:
        self.server = server
        server.execute(
            "CREATE TABLE brake ()",
            "INSERT INTO brake DEFAULT VALUES",
            "CREATE FUNCTION brake() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " WHILE EXISTS (SELECT FROM public.brake) LOOP PERFORM pg_sleep(0.01); END LOOP;"
            " RETURN OLD; END $$",
            f"CREATE TRIGGER brake BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION brake()",
        )

    def wait_for_arrival(self) -> int:
        """Waits until a worker is held up; its process id."""
        query = (
            "SELECT DISTINCT a.pid FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
            " WHERE a.backend_type = 'pg_reaper worker' AND l.relation = 'brake'::regclass"
        )
        return wait_until(lambda: self.server.query(query), bool, "the worker to be held up")[0][0]

    def release(self) -> None:
        """Lets everybody go on."""
        self.server.execute("DELETE FROM brake")
