-- $1 the name that pg_reaper.lease_table gives. Whether the table follows the protocol of a lease:
-- an ordinary table with a leader and the time of the last stamp.
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
  c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
  AND (
    SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) 2
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped AND (
      a.attname OPERATOR(pg_catalog.=) 'leader'
      AND a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY['text', 'varchar']::pg_catalog.regtype[]::pg_catalog.oid[])
      OR a.attname OPERATOR(pg_catalog.=) 'acquired_at'
      AND a.atttypid OPERATOR(pg_catalog.=) 'timestamptz'::pg_catalog.regtype::pg_catalog.oid))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid
