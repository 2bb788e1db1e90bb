-- $1 relation, $2 column, an identifier, $3 filter. Whether an index leads with the column, so that
-- finding due rows costs what is due and not what is there: a whole one; or one of just what the
-- filter lets through.
SELECT pg_catalog.bool_or(i.indpred IS NULL),
  pg_catalog.bool_or(pg_catalog.pg_get_expr(i.indpred, i.indrelid) OPERATOR(pg_catalog.=) $3)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
  AND m.amname OPERATOR(pg_catalog.=) 'btree'
JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) i.indclass[0] AND o.opcdefault
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
  AND pg_catalog.quote_ident(a.attname) OPERATOR(pg_catalog.=) $2
WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisvalid AND i.indisready AND i.indislive
AND i.indkey[0] OPERATOR(pg_catalog.=) a.attnum
