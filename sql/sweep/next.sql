-- $1 and $2 the keys to look between, $3 when the last pass looked, $4 how many to look at. The next
-- row to fall due: the first since then that the filter lets through, or else the last that was looked
-- at, where to look on. A row that was due by its own count, and not by that back from then, is left to
-- the interval.
SELECT due FROM (
  SELECT @due@ AS due, (@filter@) AS meets,
    pg_catalog.row_number() OVER (ORDER BY "the row".@deadline@) AS n
  FROM ONLY @table@ AS "the row"
  WHERE "the row".@deadline@ >= $1 AND "the row".@deadline@ < $2
  ORDER BY "the row".@deadline@ LIMIT $4) AS coming
WHERE due > $3 AND (meets OR n = $4)
LIMIT 1
