-- $1 policy, $2 table, $3 tid, $4 key, $5 deadline, $6 error, $7 SQLSTATE, $8 tries, $9 next try. Of a
-- policy that was dropped meanwhile nothing is kept.
INSERT INTO @schema@.pg_reaper_quarantine AS q
  (policy, relation, tid, key, deadline, error, sqlstate, tries, next_try)
SELECT p.id, $2, $3, $4::pg_catalog.jsonb, $5, $6, $7, $8::pg_catalog.int4, $9
FROM @schema@.pg_reaper_policy p WHERE p.id OPERATOR(pg_catalog.=) $1
ON CONFLICT (policy, relation, tid) DO UPDATE SET
  key = excluded.key, deadline = excluded.deadline, error = excluded.error,
  sqlstate = excluded.sqlstate, tries = excluded.tries, next_try = excluded.next_try,
  last_failed_at = excluded.last_failed_at,
  -- The first time that it fails it is another row than the one that lay there before.
  first_failed_at = CASE excluded.tries WHEN 1 THEN excluded.first_failed_at ELSE q.first_failed_at END
