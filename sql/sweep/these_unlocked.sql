-- As these.sql, but a row that somebody holds locked is passed over. The deadline is checked again on
-- the version that is locked, and on the one that is deleted.
DELETE FROM ONLY @table@ AS "the row"
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ONLY @table@ AS "the row" WHERE ctid = ANY ($1) AND @deadline@ < $2@also@
    FOR UPDATE SKIP LOCKED))
  AND @deadline@ < $2@also@
