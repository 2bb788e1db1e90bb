-- $1 leader, $2 term. Renews our own term and no other.
UPDATE @lease@ SET acquired_at = pg_catalog.clock_timestamp()
WHERE leader OPERATOR(pg_catalog.=) $1 AND @term@ OPERATOR(pg_catalog.=) $2
