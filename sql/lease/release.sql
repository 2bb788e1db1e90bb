-- $1 leader, $2 term. Frees our own term and no other.
UPDATE @lease@ SET leader = ''
WHERE leader OPERATOR(pg_catalog.=) $1 AND @term@ OPERATOR(pg_catalog.=) $2
