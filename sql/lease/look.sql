-- The lease as it stands, without locking it or taking a transaction id. Two rows are one too many.
SELECT leader, @term@, acquired_at FROM @lease@ LIMIT 2
