-- The lease row, locked until the end of the transaction; never waits for a lock on it.
SELECT leader, term, acquired_at FROM @schema@.pg_reaper_lease FOR UPDATE SKIP LOCKED
