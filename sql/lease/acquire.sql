-- $1 leader, $2 the term that was found. The row is locked and was judged free or stale. Terms count
-- from 1, whatever somebody wrote by hand.
UPDATE @lease@
SET leader = $1, term = GREATEST(term, 0) OPERATOR(pg_catalog.+) 1, acquired_at = pg_catalog.clock_timestamp()
WHERE term OPERATOR(pg_catalog.=) $2
RETURNING term
