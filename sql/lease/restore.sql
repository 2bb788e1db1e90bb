-- $1 the highest term known. The row was deleted: put it back, free, without reissuing a term.
INSERT INTO @lease@ (term) VALUES ($1) ON CONFLICT DO NOTHING
