-- $1 policy, $2 table: its rows in quarantine.
SELECT tid, tries::pg_catalog.int8, next_try FROM @schema@.pg_reaper_quarantine
WHERE policy OPERATOR(pg_catalog.=) $1 AND relation OPERATOR(pg_catalog.=) $2
