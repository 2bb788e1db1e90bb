-- $1 relation.
INSERT INTO @schema@.pg_reaper_policy (relation) VALUES ($1::pg_catalog.regclass)
ON CONFLICT (relation) DO NOTHING
RETURNING id
