-- $1 and $2 a range of deadlines that are due. Where a row was changed meanwhile, the deadline is
-- checked again on the version that is deleted: a barrier may have been re-armed.
DELETE FROM ONLY @table@ AS "the row"
WHERE @deadline@ >= $1 AND @deadline@ < $2@also@
