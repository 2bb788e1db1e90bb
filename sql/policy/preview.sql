-- $1 bound, $2 most rows, $3 rows that it goes round. What a pass would find, the longest overdue
-- first.
SELECT t.ctid::text, @due@, pg_catalog.row_to_json(t.*)::text
FROM ONLY @table@ AS t
WHERE t.@deadline@ < $1 AND t.ctid <> ALL ($3)@also@
ORDER BY t.@deadline@ LIMIT $2
