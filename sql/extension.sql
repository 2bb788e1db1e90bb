-- Where the extension lives in this database, its tables and their owners; no row while it is missing.
SELECT e.oid, n.nspname::pg_catalog.text, l.oid, e.extowner, e.extversion, q.oid IS NOT NULL,
  l.relowner, p.relowner
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
LEFT JOIN pg_catalog.pg_class l
  ON l.relnamespace OPERATOR(pg_catalog.=) n.oid
  AND l.relname OPERATOR(pg_catalog.=) 'pg_reaper_lease'
  AND l.relkind OPERATOR(pg_catalog.=) 'r'
LEFT JOIN pg_catalog.pg_class p
  ON p.relnamespace OPERATOR(pg_catalog.=) n.oid
  AND p.relname OPERATOR(pg_catalog.=) 'pg_reaper_policy'
  AND p.relkind OPERATOR(pg_catalog.=) 'r'
LEFT JOIN pg_catalog.pg_class q
  ON q.relnamespace OPERATOR(pg_catalog.=) n.oid
  AND q.relname OPERATOR(pg_catalog.=) 'pg_reaper_quarantine'
  AND q.relkind OPERATOR(pg_catalog.=) 'r'
  -- Not somebody's table of that name beside an extension that has none.
  AND EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.objid OPERATOR(pg_catalog.=) q.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.refobjid OPERATOR(pg_catalog.=) e.oid)
WHERE e.extname OPERATOR(pg_catalog.=) 'pg_reaper'
