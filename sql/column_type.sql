(SELECT pg_catalog.format_type(a.atttypid, NULL)
   FROM pg_catalog.pg_attribute a
   WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) '@column@'
   AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)
