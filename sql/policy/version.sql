-- $1 policy. Which version of its row it is, as policies.sql says.
SELECT pg_catalog.concat(p.ctid, p.xmin) FROM @schema@.pg_reaper_policy p
WHERE p.id OPERATOR(pg_catalog.=) $1
