-- $1 leader, $2 term. Frees our own term and no other.
UPDATE @schema@.pg_reaper_lease SET leader = ''
WHERE leader OPERATOR(pg_catalog.=) $1 AND term OPERATOR(pg_catalog.=) $2
