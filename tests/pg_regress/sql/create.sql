-- What CREATE EXTENSION makes, who may do what with it, and what it refuses to take over.

-- A worker will come, so there is nothing to warn of.
CREATE EXTENSION pg_reaper;

-- It works at once.
SELECT pg_reaper_sweep();

\d pg_barrier_state
\d pg_reaper_policy
\d pg_reaper_lease
SELECT id, relation, kind, builtin FROM pg_reaper_policy;
SELECT id, leader, term FROM pg_reaper_lease;
-- One lease, and barriers that end after they begin.
\set VERBOSITY terse
INSERT INTO pg_reaper_lease DEFAULT VALUES;
INSERT INTO pg_reaper_lease (id) VALUES (2);
INSERT INTO pg_barrier_state (execution_id, remaining, expires_at) VALUES ('x', 1, now());
\set VERBOSITY default
-- Torn down: below zero is no error.
INSERT INTO pg_barrier_state (execution_id, remaining, expires_at) VALUES ('x', -1, 'infinity');

-- Everything that it consists of, and nothing else.
SELECT pg_describe_object(classid, objid, 0) AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_reaper') AND classid <> 'pg_type'::regclass
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";

-- Who may: nobody, but for a monitor's looks.
CREATE ROLE regress_nobody;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
SELECT p.oid::regprocedure AS function,
  has_function_privilege('regress_nobody', p.oid, 'EXECUTE') AS anybody,
  has_function_privilege('regress_monitor', p.oid, 'EXECUTE') AS monitor
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_reaper')
ORDER BY p.proname COLLATE "C";
SELECT c.relname,
  has_table_privilege('regress_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS anybody,
  has_table_privilege('regress_monitor', c.oid, 'SELECT') AS monitor_reads,
  has_table_privilege('regress_monitor', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS monitor_writes
FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
WHERE c.relkind = 'r' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_reaper')
ORDER BY c.relname COLLATE "C";
DROP ROLE regress_nobody, regress_monitor;

-- Its tables are its own.
DROP TABLE pg_barrier_state;
ALTER EXTENSION pg_reaper SET SCHEMA pg_temp;
CREATE EXTENSION pg_reaper;
DROP EXTENSION pg_reaper;
SELECT to_regclass('pg_barrier_state'), to_regclass('pg_reaper_policy'), to_regclass('pg_reaper_lease');

-- In a schema of its own, found from any search_path.
CREATE SCHEMA "Reap er";
SET client_min_messages = error;
CREATE EXTENSION pg_reaper SCHEMA "Reap er";
RESET client_min_messages;
SELECT "Reap er".pg_reaper_sweep();
SELECT relation FROM "Reap er".pg_reaper_policy;
SELECT DISTINCT relnamespace::regnamespace FROM pg_class WHERE relname ~ '^pg_(reaper|barrier)';
DROP EXTENSION pg_reaper;
DROP SCHEMA "Reap er";

-- A table of that name that is there already is left alone, and the hint is the way out.
\set SHOW_CONTEXT never
CREATE TABLE pg_barrier_state (execution_id text PRIMARY KEY, remaining int, expires_at timestamptz);
INSERT INTO pg_barrier_state VALUES ('theirs', 1, '2020-01-01');
CREATE EXTENSION pg_reaper;
\echo :LAST_ERROR_SQLSTATE
TABLE pg_barrier_state;
SET client_min_messages = error;
CREATE SCHEMA reaper;
CREATE EXTENSION pg_reaper SCHEMA reaper;
SELECT reaper.pg_reaper_adopt('public.pg_barrier_state');
SELECT reaper.pg_reaper_sweep();
RESET client_min_messages;
TABLE pg_barrier_state;
DROP EXTENSION pg_reaper;
DROP TABLE pg_barrier_state;
DROP SCHEMA reaper;
