(SELECT CASE WHEN t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
     THEN t.typname::pg_catalog.text ELSE pg_catalog.format_type(t.oid, NULL) END
   FROM pg_catalog.pg_attribute a
   JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
   WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) @column@
   AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)
