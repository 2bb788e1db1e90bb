-- Which versions of which rows the policies are: another answer means other policies.
SELECT pg_catalog.string_agg(pg_catalog.concat(p.ctid, p.xmin), ' ')
FROM @schema@.pg_reaper_policy p
