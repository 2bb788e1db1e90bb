-- $1 relation, $2 column, $3 filter. Whether an index leads with the column, so that finding due
-- rows costs what is due and not what is there: a whole one, or one of just what the filter lets
-- through.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2
  WHERE i.indrelid = $1 AND i.indisvalid AND i.indkey[0] = a.attnum
  AND (i.indpred IS NULL OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) = $3))
