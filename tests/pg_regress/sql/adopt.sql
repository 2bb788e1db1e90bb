-- Adopting tables of the application, and every reason not to.
SET client_min_messages = error;
CREATE EXTENSION pg_reaper;
RESET client_min_messages;

CREATE TABLE jobs (
  execution_id text PRIMARY KEY, organization_id text, remaining integer,
  expires_at timestamptz, last_progress_at timestamptz);
-- Without an index on the deadline it is scanned.
SELECT pg_reaper_adopt('jobs');
SELECT id, relation, kind, builtin FROM pg_reaper_policy ORDER BY id;

-- Once is enough.
SELECT pg_reaper_adopt('jobs');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt('pg_barrier_state');
\echo :LAST_ERROR_SQLSTATE

-- The end of it.
SELECT pg_reaper_disown('jobs');
SELECT pg_reaper_disown('jobs');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep('jobs');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_disown('pg_barrier_state');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pg_reaper_policy;

-- Partitioned tables, and tables with the least that is needed.
CREATE TABLE parted (execution_id text, expires_at timestamptz) PARTITION BY LIST (execution_id);
CREATE INDEX ON parted (expires_at);
SELECT pg_reaper_adopt('parted');
CREATE UNLOGGED TABLE least (execution_id text, expires_at timestamptz);
CREATE INDEX ON least (expires_at, execution_id);
SELECT pg_reaper_adopt('least');

-- No such column, and columns of another type.
CREATE TABLE no_deadline (execution_id text);
SELECT pg_reaper_adopt('no_deadline');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE no_id (expires_at timestamptz);
SELECT pg_reaper_adopt('no_id');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE was_dropped (execution_id text, expires_at timestamptz);
ALTER TABLE was_dropped DROP expires_at;
SELECT pg_reaper_adopt('was_dropped');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE uuids (execution_id uuid, expires_at timestamptz);
SELECT pg_reaper_adopt('uuids');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE no_zone (execution_id text, expires_at timestamp);
SELECT pg_reaper_adopt('no_zone');
\echo :LAST_ERROR_SQLSTATE
CREATE DOMAIN deadline AS timestamptz;
CREATE TABLE domains (execution_id text, expires_at deadline);
SELECT pg_reaper_adopt('domains');
\echo :LAST_ERROR_SQLSTATE

-- What is no table.
CREATE VIEW a_view AS TABLE least;
SELECT pg_reaper_adopt('a_view');
\echo :LAST_ERROR_SQLSTATE
CREATE MATERIALIZED VIEW a_matview AS TABLE least;
SELECT pg_reaper_adopt('a_matview');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE a_foreign_table (execution_id text, expires_at timestamptz) SERVER nowhere;
SELECT pg_reaper_adopt('a_foreign_table');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN TABLE a_foreign_leaf PARTITION OF parted DEFAULT SERVER nowhere;
SELECT pg_reaper_disown('parted');
SELECT pg_reaper_adopt('parted');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt('jobs_pkey');
\echo :LAST_ERROR_SQLSTATE
CREATE SEQUENCE a_sequence;
SELECT pg_reaper_adopt('a_sequence');
\echo :LAST_ERROR_SQLSTATE
CREATE TYPE a_type AS (execution_id text, expires_at timestamptz);
SELECT pg_reaper_adopt('a_type');
\echo :LAST_ERROR_SQLSTATE

-- Tables that are no application's.
SELECT pg_reaper_adopt('pg_class');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt('information_schema.sql_features');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt('pg_reaper_lease');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt('pg_reaper_policy');
\echo :LAST_ERROR_SQLSTATE
CREATE TEMP TABLE passing (execution_id text, expires_at timestamptz);
-- The number of its schema varies.
DO $$
BEGIN
  PERFORM pg_reaper_adopt('passing');
EXCEPTION WHEN wrong_object_type THEN
  RAISE NOTICE '%', regexp_replace(SQLERRM, 'pg_temp_\d+', 'pg_temp_N');
END
$$;

-- What is not there at all.
SELECT pg_reaper_adopt('nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt(4294967295);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_disown(4294967295);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep(4294967295);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_adopt(NULL) IS NULL, pg_reaper_disown(NULL) IS NULL;

-- Somebody else's.
CREATE ROLE regress_alice;
GRANT EXECUTE ON FUNCTION pg_reaper_adopt, pg_reaper_disown, pg_reaper_sweep TO regress_alice;
GRANT ALL ON jobs, least TO regress_alice;
SET ROLE regress_alice;
SELECT pg_reaper_adopt('jobs');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_disown('least');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep('least');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep();
RESET ROLE;

SELECT id, relation FROM pg_reaper_policy ORDER BY id;
SET client_min_messages = error;
DROP EXTENSION pg_reaper;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
DROP MATERIALIZED VIEW a_matview;
DROP VIEW a_view;
DROP TABLE jobs, parted, least, no_deadline, no_id, was_dropped, uuids, no_zone, domains;
DROP SEQUENCE a_sequence;
DROP TYPE a_type, deadline;
DROP ROLE regress_alice;
