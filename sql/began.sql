-- When the server began to accept writes, after a start, a crash or a promotion: its WAL writer was
-- started then, and lives as long as the shared memory does.
SELECT a.backend_start FROM pg_catalog.pg_stat_get_activity(NULL) a
WHERE a.backend_type OPERATOR(pg_catalog.=) 'walwriter'
