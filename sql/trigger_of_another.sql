-- Whether a leaf, c, of a watched table, r, has a trigger of its parent that a DELETE fires and its owner
-- has not asked for: with somebody else's function, or somebody else's condition.
EXISTS (
  SELECT FROM pg_catalog.pg_trigger g
  JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) g.tgfoid
  JOIN pg_catalog.pg_trigger above ON above.oid OPERATOR(pg_catalog.=) g.tgparentid
  JOIN pg_catalog.pg_class parent ON parent.oid OPERATOR(pg_catalog.=) above.tgrelid
  WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT g.tgisinternal
  AND (g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 8) OPERATOR(pg_catalog.=) 8
  AND g.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
  AND NOT (pg_catalog.pg_has_role(r.relowner, c.relowner, 'USAGE')
    AND pg_catalog.pg_has_role(parent.relowner, c.relowner, 'USAGE'))
  AND (g.tgqual IS NOT NULL OR NOT pg_catalog.pg_has_role(f.proowner, c.relowner, 'USAGE')))
