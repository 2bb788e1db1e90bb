-- pg_reaper_sweep() as a user calls it. Lines of single orphans tell times, so only sums are shown.
SET client_min_messages = error;
CREATE EXTENSION pg_reaper;
RESET client_min_messages;
SET pg_reaper.log_limit = 0;

CREATE TABLE jobs (execution_id text PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON jobs (expires_at);
SELECT pg_reaper_adopt('jobs');
CREATE PROCEDURE arm() LANGUAGE sql AS $$
  INSERT INTO pg_barrier_state (execution_id, remaining, created_at, expires_at)
    SELECT 'b' || n, 1, '-infinity', now() - n * interval '1 min' FROM generate_series(1, 5) n;
  INSERT INTO jobs SELECT 'j' || n, now() - n * interval '1 min' FROM generate_series(1, 3) n;
  INSERT INTO jobs VALUES ('alive', now() + interval '1 day'), ('for ever', 'infinity'), ('never', NULL);
$$;
CALL arm();

-- All tables, and what is left.
SELECT pg_reaper_sweep();
SELECT execution_id FROM pg_barrier_state UNION SELECT execution_id FROM jobs ORDER BY 1;
SELECT pg_reaper_sweep();

-- One table.
TRUNCATE jobs;
CALL arm();
SELECT pg_reaper_sweep('jobs');
SELECT count(*) FROM pg_barrier_state;

-- No more than so many, the oldest first.
SELECT pg_reaper_sweep(max_rows => 2);
SELECT execution_id FROM pg_barrier_state ORDER BY 1;
SELECT pg_reaper_sweep('pg_barrier_state', 1);
SELECT pg_reaper_sweep(max_rows => 0);
SELECT pg_reaper_sweep(max_rows => -1);
\echo :LAST_ERROR_SQLSTATE

-- In a transaction it is undone like everything else.
BEGIN;
SELECT pg_reaper_sweep();
SELECT count(*) FROM pg_barrier_state;
ROLLBACK;
SELECT count(*) FROM pg_barrier_state;

-- A table that cannot be swept is told of, and the others are swept.
TRUNCATE jobs, pg_barrier_state;
CALL arm();
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'no disk today' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON pg_barrier_state FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT pg_reaper_sweep();
SELECT pg_reaper_sweep('pg_barrier_state');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pg_barrier_state;

-- A row that cannot be reaped stops nothing.
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF OLD.execution_id IN ('b1', 'b3') THEN RAISE 'not %', OLD.execution_id; END IF; RETURN OLD; END $$;
SELECT pg_reaper_sweep('pg_barrier_state');
SELECT policy, relation, key, error, sqlstate, tries FROM pg_reaper_quarantine ORDER BY key;
SELECT policy, quarantined FROM pg_reaper_policies;
SELECT count(*) FROM pg_reaper_preview(1);
SELECT pg_reaper_sweep('pg_barrier_state');
SELECT key, tries FROM pg_reaper_quarantine ORDER BY key;
DROP TRIGGER refuse ON pg_barrier_state;
SELECT pg_reaper_sweep();
SELECT count(*) FROM pg_reaper_quarantine;
TRUNCATE jobs, pg_barrier_state;
CALL arm();

-- Rows that a trigger keeps are not counted.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON pg_barrier_state
  FOR EACH ROW WHEN (OLD.execution_id < 'b3') EXECUTE FUNCTION keep();
SELECT pg_reaper_sweep();
SELECT execution_id FROM pg_barrier_state ORDER BY 1;
DROP TRIGGER keep ON pg_barrier_state;

-- Deferred keys of somebody else's table are not for us to run.
CREATE ROLE regress_bob;
CREATE TABLE tasks (job text REFERENCES jobs DEFERRABLE INITIALLY DEFERRED);
SELECT pg_reaper_sweep('jobs');
ALTER TABLE jobs OWNER TO regress_bob;
SELECT pg_reaper_sweep('jobs');
\echo :LAST_ERROR_SQLSTATE
DROP TABLE tasks;

-- A column of the protocol is gone.
ALTER TABLE jobs RENAME expires_at TO deadline;
SELECT pg_reaper_sweep();
SELECT pg_reaper_sweep('jobs');
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE jobs RENAME deadline TO expires_at;

-- Without progress.
INSERT INTO pg_barrier_state (execution_id, remaining, expires_at, last_progress_at)
  VALUES ('stuck', 1, 'infinity', now() - interval '1 h'), ('moving', 1, 'infinity', now());
SELECT pg_reaper_sweep();
SET pg_reaper.stuck_timeout = '30min';
SELECT pg_reaper_sweep();
SELECT execution_id FROM pg_barrier_state ORDER BY 1;

-- The adopted table goes, and its policy with it.
DROP TABLE jobs;
SELECT pg_reaper_sweep();

DROP EXTENSION pg_reaper;
SELECT pg_reaper_sweep();
DROP PROCEDURE arm;
DROP FUNCTION refuse, keep;
DROP ROLE regress_bob;
