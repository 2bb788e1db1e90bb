-- The workers of this database, the oldest first.
SELECT a.pid::pg_catalog.int8 FROM pg_catalog.pg_stat_get_activity(NULL) a
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) a.datid
WHERE a.backend_type OPERATOR(pg_catalog.=) 'pg_reaper worker'
AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
ORDER BY a.backend_start
