-- $1 relation. The first of its leaves that is a foreign table.
WITH RECURSIVE member (relation) AS (
  SELECT $1
  UNION ALL
  SELECT i.inhrelid FROM member m
  JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.relation
)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM member m
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.relation
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'f'
ORDER BY m.relation LIMIT 1
