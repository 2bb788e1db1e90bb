-- Rows of tables that their policy does not watch any more: dropped or detached leaves.
WITH RECURSIVE member (policy, relation) AS (
  SELECT p.id, p.relation::pg_catalog.oid FROM @schema@.pg_reaper_policy p
  UNION ALL
  SELECT m.policy, i.inhrelid
  FROM member m
  JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.relation
  WHERE NOT i.inhdetachpending
)
DELETE FROM @schema@.pg_reaper_quarantine q
WHERE NOT EXISTS (
  SELECT FROM member m
  WHERE m.policy OPERATOR(pg_catalog.=) q.policy
    AND m.relation OPERATOR(pg_catalog.=) q.relation::pg_catalog.oid)
