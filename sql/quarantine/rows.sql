-- $1 tids: what is said of their rows.
SELECT t.ctid, @due@, pg_catalog.jsonb_build_object(@key@)::text
FROM ONLY @table@ AS t WHERE t.ctid = ANY ($1)
