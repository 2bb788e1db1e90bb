-- $1 tids that were due when they were read, $2 cutoff. The deadline is checked again on the version
-- that is deleted: a tid may hold another row by now, and a barrier may have been re-armed.
DELETE FROM ONLY @table@ AS "the row"
WHERE ctid = ANY ($1) AND @deadline@ < $2@also@
