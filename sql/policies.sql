-- What is watched: each policy with the tables that hold its rows (itself, its leaves), their
-- owners, and the types of the columns of the protocol. A policy whose table is gone has none.
WITH RECURSIVE member (policy, builtin, relation) AS (
  SELECT p.id, p.builtin, p.relation::pg_catalog.oid
  FROM @schema@.pg_reaper_policy p
  UNION ALL
  SELECT m.policy, m.builtin, i.inhrelid
  FROM member m
  JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.relation
)
SELECT m.policy, m.builtin, m.relation, c.relowner, c.relkind::text,
  CASE WHEN c.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END,
  @types@
FROM member m
LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid IS NULL
  -- A temporary child can only be seen by its own session.
  OR c.relkind OPERATOR(pg_catalog.<>) 'p' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
ORDER BY m.policy, m.relation
