-- $1 table: its primary key, as the arguments of jsonb_build_object.
SELECT pg_catalog.string_agg(
  pg_catalog.format('%L, t.%I', a.attname, a.attname), ', ' ORDER BY k.n)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, n)
JOIN pg_catalog.pg_attribute a
  ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.attnum
WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisprimary
  AND k.n OPERATOR(pg_catalog.<=) i.indnkeyatts
