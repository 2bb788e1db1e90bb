-- $1 a deadline, $2 the tid to read on after, $3 the most rows. An index keeps rows with one deadline
-- in the order of their tids; to sort them would take long, and they are checked to be in order.
SELECT @deadline@, ctid FROM ONLY @table@ AS "the row"
WHERE @deadline@ = $1 AND ctid > $2@also@
LIMIT $3
