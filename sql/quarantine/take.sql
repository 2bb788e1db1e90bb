-- $1 policy, $2 table, $3 tids that are not held any more.
DELETE FROM @schema@.pg_reaper_quarantine
WHERE policy OPERATOR(pg_catalog.=) $1 AND relation OPERATOR(pg_catalog.=) $2
  AND tid OPERATOR(pg_catalog.=) ANY ($3)
