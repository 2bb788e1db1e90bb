-- $1 bound, $2 how many to look at. The next row to fall due, from those that come first: one that
-- the filter lets through, or else the last of them, where to look on.
SELECT COALESCE(pg_catalog.min(due) FILTER (WHERE meets), pg_catalog.max(due)) FROM (
  SELECT @due@ AS due, (@filter@) AS meets FROM ONLY @table@
  WHERE @deadline@ >= $1 ORDER BY @deadline@ LIMIT $2) AS coming
