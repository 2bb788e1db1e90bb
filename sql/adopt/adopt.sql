-- $1 relation.
INSERT INTO @schema@.pg_reaper_policy (relation) VALUES ($1::pg_catalog.regclass)
ON CONFLICT (relation) WHERE kind OPERATOR(pg_catalog.=) 'barrier' DO NOTHING
RETURNING id
