-- As next.sql, where no index has all rows, but one those that the filter lets through.
SELECT @due@ FROM ONLY @table@ AS t
WHERE t.@deadline@ >= $1 AND t.@deadline@ < $2 AND (@filter@) AND @due@ > $3
ORDER BY t.@deadline@ LIMIT 1
