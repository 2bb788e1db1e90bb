-- Whether a leaf, c, of a watched table, r, has a trigger from a table above it that a DELETE fires and
-- its owner has not asked for: with somebody else's function, or somebody else's condition.
EXISTS (
  SELECT FROM pg_catalog.pg_trigger g
  JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) g.tgfoid
  WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT g.tgisinternal
  AND g.tgparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
  AND (g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 8) OPERATOR(pg_catalog.=) 8
  AND g.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
  AND NOT (pg_catalog.pg_has_role(r.relowner, c.relowner, 'USAGE') AND NOT EXISTS (
    WITH RECURSIVE above (relation, parent) AS (
      SELECT g.tgrelid, g.tgparentid
      UNION ALL
      SELECT p.tgrelid, p.tgparentid FROM above a
      JOIN pg_catalog.pg_trigger p ON p.oid OPERATOR(pg_catalog.=) a.parent
    )
    SELECT FROM above a
    JOIN pg_catalog.pg_class o ON o.oid OPERATOR(pg_catalog.=) a.relation
    WHERE NOT pg_catalog.pg_has_role(o.relowner, c.relowner, 'USAGE')))
  AND (g.tgqual IS NOT NULL OR NOT pg_catalog.pg_has_role(f.proowner, c.relowner, 'USAGE')))
