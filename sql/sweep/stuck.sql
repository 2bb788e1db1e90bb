-- $1 cutoff, $2 and $3 the range of blocks.
SELECT last_progress_at, ctid FROM ONLY @table@
WHERE ctid >= $2 AND ctid < $3 AND last_progress_at < $1
