-- Policies: rows of any table are due by a column of it; and every reason not to watch one.
SET client_min_messages = error;
CREATE EXTENSION pg_reaper;
RESET client_min_messages;
SET timezone = 'UTC';

CREATE TABLE sessions (id text, expires_at timestamptz, seen timestamp, born date, state text, n int);
CREATE INDEX ON sessions (expires_at);
SELECT pg_reaper_add_policy('sessions', 'expires_at');
-- Without an index on the column each sweep reads it all; what to run is not run for you.
SELECT pg_reaper_add_policy('sessions', 'seen', ttl => '30 days', time_zone => 'Europe/Berlin', name => 'unseen',
  filter => 'state <> ''kept'' and n between 1 and 5', batch_size => 50, rate_limit => 100, sweep_interval => '1 hour');
SELECT pg_reaper_add_policy('sessions', 'born', ttl => '18 years', time_zone => 'UTC', enabled => false);
-- An index of just what the filter lets through is one.
CREATE INDEX ON sessions (seen) WHERE state = 'done';
SELECT pg_reaper_add_policy('sessions', 'seen', time_zone => 'UTC', filter => 'state = ''done''');
SELECT pg_reaper_drop_policy(5);
\x on
SELECT policy, name, relation, kind, expires_column, ttl, filter, time_zone, batch_size, rate_limit, sweep_interval,
  stuck_timeout, enabled, suspended, builtin FROM pg_reaper_policies;
\x off

-- What would be reaped, and why.
INSERT INTO sessions VALUES
  ('expired', '2020-01-01', NULL, NULL, 'open', 1),
  ('unseen', 'infinity', '2020-01-01', NULL, 'open', 1),
  ('kept', NULL, '2020-01-02', NULL, 'kept', 1),
  ('of age', NULL, NULL, '2000-02-29', 'open', 1),
  ('never', 'infinity', 'infinity', 'infinity', 'open', 1);
SELECT policy_id, relation, deadline, reason, row_data ->> 'id' AS id FROM pg_reaper_preview();
-- One that is not enabled is shown when it is asked for.
SELECT policy_id, relation, deadline, reason, row_data ->> 'id' AS id FROM pg_reaper_preview(4);
SELECT pg_reaper_sweep(policy => 4);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep(policy => 3);
SELECT pg_reaper_sweep('sessions');
SELECT id FROM sessions ORDER BY id;
SELECT pg_reaper_sweep(policy => 4711);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_sweep('sessions', policy => 3);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM pg_reaper_preview(4711);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM pg_reaper_preview(max_rows => -1);
\echo :LAST_ERROR_SQLSTATE

-- Changing one: what is not named stays, what reset names goes back to none.
SELECT pg_reaper_alter_policy(3, ttl => '1 day', name => 'unseen', reset => '{filter,rate_limit}');
SELECT name, ttl, filter, batch_size, rate_limit, sweep_interval, time_zone FROM pg_reaper_policies WHERE policy = 3;
SELECT pg_reaper_alter_policy(3, expires_column => 'born');
SELECT pg_reaper_alter_policy(3, enabled => false, reset => '{name,ttl,batch_size,sweep_interval}');
SELECT name, expires_column, ttl, batch_size, sweep_interval, time_zone, enabled FROM pg_reaper_policies WHERE policy = 3;
SELECT pg_reaper_alter_policy(3, reset => '{expires_column}');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(3, reset => '{time_zone}');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(3, stuck_timeout => '1 h');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(4711);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(NULL);
\echo :LAST_ERROR_SQLSTATE
-- Of barriers only some of it can be changed.
SELECT pg_reaper_alter_policy(1, stuck_timeout => '10 min', batch_size => 5, rate_limit => 5, sweep_interval => '1 s', name => 'barriers');
SELECT pg_reaper_alter_policy(1, ttl => '1 h');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(1, expires_column => 'created_at');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(1, filter => 'true');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(1, time_zone => 'UTC');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(1, reset => '{stuck_timeout,batch_size,rate_limit,sweep_interval,name}');
SELECT pg_reaper_drop_policy(1);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_drop_policy(4711);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_drop_policy(4);

-- Settings that mean nothing.
SELECT pg_reaper_add_policy('sessions', 'expires_at', ttl => '-1 s');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', ttl => '1 mon -40 days');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', ttl => '178000000 years');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', batch_size => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', batch_size => 100001);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', rate_limit => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', sweep_interval => '0');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', time_zone => 'Middle/Earth');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', name => '');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', name => 'taken');
SELECT pg_reaper_add_policy('sessions', 'expires_at', name => 'taken');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(2, name => 'taken');
\echo :LAST_ERROR_SQLSTATE

-- Columns that are none, or no point in time.
SELECT pg_reaper_add_policy('sessions', 'nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'ctid');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'state');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'seen');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'born');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy(NULL, 'seen');
\echo :LAST_ERROR_SQLSTATE
CREATE DOMAIN deadline AS timestamptz;
CREATE TABLE domains (at deadline);
SELECT pg_reaper_add_policy('domains', 'at');
\echo :LAST_ERROR_SQLSTATE

-- Filters that do not qualify.
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'n');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'nothing = 1');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'n = ');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'expires_at < now()');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'n = (SELECT 1)');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'max(n) = 1');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'true); DROP TABLE sessions; SELECT (true');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'true) FROM pg_class WHERE (true');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'tableoid = 1');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'sessions IS NOT NULL');
\echo :LAST_ERROR_SQLSTATE

-- Names are looked up by the path of who writes them, and kept qualified.
CREATE SCHEMA app;
CREATE FUNCTION app.is_done(text) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = 'done';
CREATE FUNCTION app.never(int, int) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN false;
CREATE OPERATOR app.= (LEFTARG = int, RIGHTARG = int, FUNCTION = app.never);
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'is_done(state)');
\echo :LAST_ERROR_SQLSTATE
SET search_path = app, public, pg_catalog;
SELECT pg_reaper_add_policy('sessions', 'expires_at', filter => 'is_done(state) OR n = 1', name => 'qualified');
RESET search_path;
SELECT filter FROM pg_reaper_policies WHERE name = 'qualified';
-- What comes of it later is shown, and told of nobody else.
DROP FUNCTION app.is_done;
SELECT name, suspended FROM pg_reaper_policies WHERE suspended IS NOT NULL;
ALTER TABLE sessions RENAME expires_at TO ends_at;
ALTER TABLE sessions ALTER seen TYPE text;
SELECT name, expires_column, suspended FROM pg_reaper_policies WHERE suspended IS NOT NULL;
-- Each policy complains for itself; where none was named, the others go on.
CREATE TABLE others (at timestamptz);
CREATE INDEX ON others (at);
SELECT pg_reaper_add_policy('others', 'at', name => 'others') > 0 AS added;
INSERT INTO others VALUES ('2020-01-01');
SELECT pg_reaper_sweep();
SELECT pg_reaper_drop_policy(policy) FROM pg_reaper_policies WHERE name IN ('others', 'qualified');
ALTER TABLE sessions RENAME ends_at TO expires_at;

-- Partitioned tables; an index of those cannot be made concurrently.
CREATE TABLE parted (at timestamptz, "Odd name" date) PARTITION BY RANGE (at);
SELECT pg_reaper_add_policy('parted', 'Odd name', time_zone => 'UTC');
CREATE TABLE leaf PARTITION OF parted DEFAULT;
CREATE INDEX ON ONLY parted (at);
-- It is not valid yet.
SELECT pg_reaper_add_policy('parted', 'at');
INSERT INTO parted VALUES ('2020-01-01', 'infinity'), ('infinity', '2020-01-01'), ('infinity', NULL);
SELECT relation, deadline, reason FROM pg_reaper_preview();
SELECT pg_reaper_sweep('parted');
TABLE parted;

-- What is no table of an application.
CREATE VIEW a_view AS TABLE sessions;
SELECT pg_reaper_add_policy('a_view', 'seen');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE a_foreign_table (at timestamptz) SERVER nowhere;
SELECT pg_reaper_add_policy('a_foreign_table', 'at');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN TABLE a_foreign_child () INHERITS (domains) SERVER nowhere;
ALTER TABLE domains ADD due timestamptz;
SELECT pg_reaper_add_policy('domains', 'due');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('pg_stat_statements_or_none', 'at');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('pg_class', 'relname');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('pg_reaper_lease', 'acquired_at');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_add_policy('pg_barrier_state', 'created_at');
\echo :LAST_ERROR_SQLSTATE
CREATE TEMP TABLE passing (at timestamptz);
-- The number of its schema varies.
DO $$
BEGIN
  PERFORM pg_reaper_add_policy('passing', 'at');
EXCEPTION WHEN wrong_object_type THEN
  RAISE NOTICE '%', regexp_replace(SQLERRM, 'pg_temp_\d+', 'pg_temp_N');
END
$$;

-- Rights.
CREATE ROLE regress_alice;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
SET ROLE regress_alice;
SELECT pg_reaper_add_policy('sessions', 'expires_at');
\echo :LAST_ERROR_SQLSTATE
TABLE pg_reaper_policies;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION pg_reaper_add_policy, pg_reaper_alter_policy, pg_reaper_drop_policy, pg_reaper_preview
  TO regress_alice;
GRANT ALL ON sessions TO regress_alice;
SET ROLE regress_alice;
SELECT pg_reaper_add_policy('sessions', 'expires_at');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_alter_policy(2, ttl => '1 h');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_reaper_drop_policy(2);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM pg_reaper_preview(2);
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_monitor;
SELECT count(*) FROM pg_reaper_policies;
SELECT pg_reaper_drop_policy(2);
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;

SET client_min_messages = error;
DROP EXTENSION pg_reaper;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
DROP VIEW a_view;
DROP TABLE sessions, others, parted, domains;
DROP DOMAIN deadline;
DROP SCHEMA app CASCADE;
DROP ROLE regress_alice, regress_monitor;
