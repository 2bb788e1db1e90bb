-- $1 relation. Whether a whole index leads with the deadline, so that finding due rows costs what
-- is due and not what is there.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'expires_at'
  WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
