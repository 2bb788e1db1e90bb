-- The foreign keys from one policy's tables to another's, as their policies.
WITH RECURSIVE member (policy, relation) AS (
  SELECT p.id, p.relation::pg_catalog.oid
  FROM @schema@.pg_reaper_policy p
  UNION ALL
  SELECT m.policy, i.inhrelid
  FROM member m
  JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.relation
)
SELECT DISTINCT f.policy, t.policy
FROM pg_catalog.pg_constraint k
JOIN member f ON f.relation OPERATOR(pg_catalog.=) k.conrelid
JOIN member t ON t.relation OPERATOR(pg_catalog.=) k.confrelid
WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND f.policy OPERATOR(pg_catalog.<>) t.policy
