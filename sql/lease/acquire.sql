-- $1 leader, $2 the term that was found. The row is locked and was judged free or stale.
UPDATE @schema@.pg_reaper_lease
SET leader = $1, term = term OPERATOR(pg_catalog.+) 1, acquired_at = pg_catalog.clock_timestamp()
WHERE term OPERATOR(pg_catalog.=) $2
RETURNING term
