-- $1 tids: those that still have a row, with what it is due by.
SELECT ctid, @deadline@ FROM ONLY @table@ WHERE ctid = ANY ($1)
