-- Where the extension lives in this database, and its lease table; no row while it is missing.
SELECT e.oid, n.nspname::text, l.oid
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
LEFT JOIN pg_catalog.pg_class l
  ON l.relnamespace = n.oid AND l.relname = 'pg_reaper_lease' AND l.relkind = 'r'
WHERE e.extname = 'pg_reaper'
