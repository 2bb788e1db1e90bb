-- $1 leader, new with every acquisition; there is no term ($2). The row is locked and was judged
-- free or stale.
UPDATE @lease@ SET leader = $1, acquired_at = pg_catalog.clock_timestamp()
WHERE $2 OPERATOR(pg_catalog.=) @term@
RETURNING @term@
