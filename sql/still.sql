-- $1 table, $2 the watched table, $3 column, an identifier, $4 the name of its type. Whether the table is
-- the watched one or a child of it, without a trigger of another's, and its column of that type.
WITH RECURSIVE above (relation) AS (
  SELECT $1
  UNION
  SELECT i.inhparent FROM above a
  JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) a.relation
  WHERE NOT i.inhdetachpending
)
SELECT EXISTS (SELECT FROM above a WHERE a.relation OPERATOR(pg_catalog.=) $2) AND EXISTS (
  SELECT FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
  WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0
  AND NOT a.attisdropped AND pg_catalog.quote_ident(a.attname) OPERATOR(pg_catalog.=) $3
  AND t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
  AND t.typname OPERATOR(pg_catalog.=) $4)
AND EXISTS (
  SELECT FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) $2
  WHERE c.oid OPERATOR(pg_catalog.=) $1 AND NOT @trigger_of_another@)
