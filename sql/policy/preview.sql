-- $1 bound, $2 most rows. What a pass would find, the longest overdue first.
SELECT ctid::text, @due@, pg_catalog.row_to_json(t.*)::text
FROM ONLY @table@ t
WHERE @deadline@ < $1@also@
ORDER BY @deadline@ LIMIT $2
