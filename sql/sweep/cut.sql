-- $1 and $2 a range of deadlines, $3 how many rows to leave out: the deadline of the next one. It
-- runs on an index that leads with the deadline, and reads as far as that row: rows that a filter
-- leaves out count as well, so that no batch reads more than so many.
SELECT @deadline@ FROM ONLY @table@ AS "the row"
WHERE @deadline@ @from@ $1 AND @deadline@ < $2@filtered@
ORDER BY @deadline@ OFFSET $3 LIMIT 1
