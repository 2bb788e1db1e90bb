-- As next.sql, where no index has all rows, but one those that the filter lets through.
SELECT @due@ FROM ONLY @table@ AS "the row"
WHERE "the row".@deadline@ >= $1 AND "the row".@deadline@ < $2 AND (@filter@) AND @due@ > $3
ORDER BY "the row".@deadline@ LIMIT 1
