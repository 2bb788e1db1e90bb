-- $1 cutoff, $2 and $3 the deadline and tid to read on after, $4 the most rows.
SELECT expires_at, ctid FROM ONLY @table@
WHERE expires_at < $1 AND expires_at >= $2 AND (expires_at > $2 OR ctid > $3)
ORDER BY expires_at, ctid LIMIT $4
