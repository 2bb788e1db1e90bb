-- $1 cutoff, $2 and $3 the range of blocks.
SELECT @deadline@, ctid FROM ONLY @table@ AS "the row"
WHERE ctid >= $2 AND ctid < $3 AND @deadline@ < $1@also@
