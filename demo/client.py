"""One worker process of the application: takes tasks and finishes them, until none is left.

    python demo/client.py DSN NUMBER TASKS_AT_ONCE
"""

from __future__ import annotations

import json
import random
import sys
import time

import psycopg

# A task is taken and committed before it is done, as with any queue that hands out
# work: what a killed client had taken is therefore never done.
TAKE = """
UPDATE demo.task SET taken_by = %s
WHERE (execution_id, number) IN (
    SELECT execution_id, number FROM demo.task WHERE taken_by IS NULL
    ORDER BY number, execution_id LIMIT %s FOR UPDATE SKIP LOCKED
)
RETURNING execution_id, number
"""

FINISH = """
UPDATE pg_barrier_state
SET remaining = remaining - 1, results = results || %s::jsonb, last_progress_at = now()
WHERE execution_id = %s AND remaining > 0
RETURNING remaining, results
"""


def finish(connection: psycopg.Connection, execution_id: str, result: dict[str, int]) -> None:
    """Counts one task down; whoever reaches zero fires the callback and deletes the row.

    No row means that the barrier is gone: the result comes too late and is abandoned.
    """
    with connection.transaction():
        row = connection.execute(FINISH, (json.dumps([result]), execution_id)).fetchone()
        if row is None:
            connection.execute("INSERT INTO demo.abandoned (execution_id) VALUES (%s)", (execution_id,))
            return
        remaining, results = row
        if remaining == 0:
            connection.execute(
                "INSERT INTO demo.callback (execution_id, results) VALUES (%s, %s)",
                (execution_id, json.dumps(results)),
            )
            connection.execute("DELETE FROM pg_barrier_state WHERE execution_id = %s", (execution_id,))


def main() -> None:
    """Works until nothing is left to take."""
    dsn, number, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with psycopg.connect(dsn, autocommit=True) as connection:
        while tasks := connection.execute(TAKE, (number, at_once)).fetchall():
            for execution_id, task in tasks:
                time.sleep(random.uniform(0.01, 0.05))  # the work itself
                finish(connection, execution_id, {"task": task, "client": number})


if __name__ == "__main__":
    main()
