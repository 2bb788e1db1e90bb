-- $1 cutoff, $2 and $3 the deadline and tid to read on after, $4 the most rows.
SELECT @deadline@, ctid FROM ONLY @table@ AS "the row"
WHERE @deadline@ < $1 AND @deadline@ >= $2 AND (@deadline@ > $2 OR ctid > $3)@also@
ORDER BY @deadline@, ctid LIMIT $4
