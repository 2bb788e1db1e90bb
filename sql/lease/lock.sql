-- The lease row, locked until the end of the transaction; never waits for a lock on it.
SELECT leader, @term@, acquired_at FROM @lease@ FOR UPDATE SKIP LOCKED
