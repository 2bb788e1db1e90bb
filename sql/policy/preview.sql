-- $1 bound, $2 most rows, $3 rows that it goes round. What a pass would find, the longest overdue
-- first.
SELECT "the row".ctid::text, @due@, pg_catalog.row_to_json("the row".*)::text
FROM ONLY @table@ AS "the row"
WHERE "the row".@deadline@ < $1 AND "the row".ctid <> ALL ($3)@also@
ORDER BY "the row".@deadline@ LIMIT $2
