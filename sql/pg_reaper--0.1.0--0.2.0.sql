-- From 0.1.0 to 0.2.0: the worker of a database can be started and stopped, the launcher is told of
-- new extensions, any table can be watched, rows that cannot be reaped go into
-- quarantine, and the brake can be seen and let go.

ALTER TABLE @extschema@.pg_reaper_policy
  DROP CONSTRAINT pg_reaper_policy_relation_key,
  DROP CONSTRAINT pg_reaper_policy_kind_check,
  ADD COLUMN name           text,
  ADD COLUMN expires_column name,
  ADD COLUMN ttl            interval,
  ADD COLUMN filter         text,
  ADD COLUMN time_zone      text,
  ADD COLUMN batch_size     integer,
  ADD COLUMN rate_limit     integer,
  ADD COLUMN sweep_interval interval,
  ADD COLUMN stuck_timeout  interval,
  ADD COLUMN meaning        text,
  ADD COLUMN enabled        boolean NOT NULL DEFAULT true,
  ADD CONSTRAINT pg_reaper_policy_kind_check
    CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['barrier', 'expiry'])),
  ADD CONSTRAINT pg_reaper_policy_name_key UNIQUE (name),
  ADD CONSTRAINT pg_reaper_policy_column_check
    CHECK ((kind OPERATOR(pg_catalog.=) 'expiry') OPERATOR(pg_catalog.=) (expires_column IS NOT NULL));
CREATE UNIQUE INDEX pg_reaper_policy_barrier ON @extschema@.pg_reaper_policy (relation)
  WHERE kind OPERATOR(pg_catalog.=) 'barrier';
COMMENT ON TABLE @extschema@.pg_reaper_policy IS
  'What pg_reaper watches, one row for each policy; see pg_reaper_policies';
-- A policy whose table was dropped is not dumped: it would name, by its number, whatever has that number
-- in the new database.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.pg_reaper_policy',
  'WHERE NOT builtin AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) relation)');

CREATE TABLE @extschema@.pg_reaper_quarantine (
  policy          bigint NOT NULL REFERENCES @extschema@.pg_reaper_policy ON DELETE CASCADE,
  relation        regclass NOT NULL,
  key             jsonb NOT NULL,
  deadline        timestamptz NOT NULL,
  error           text NOT NULL,
  sqlstate        text NOT NULL,
  tries           integer NOT NULL,
  first_failed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  last_failed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  next_try        timestamptz NOT NULL,
  tid             tid NOT NULL,
  PRIMARY KEY (policy, relation, tid)
);
COMMENT ON TABLE @extschema@.pg_reaper_quarantine IS
  'Rows that could not be reaped, each with its error and its next try; passes go round them';
REVOKE ALL ON @extschema@.pg_reaper_quarantine FROM PUBLIC;
-- But for what the rows say.
GRANT SELECT (policy, relation, deadline, sqlstate, tries, first_failed_at, last_failed_at, next_try, tid)
  ON @extschema@.pg_reaper_quarantine TO pg_monitor;

-- What a server is told and holds is its own. Where a publication takes all tables along, a subscriber
-- would be given the publisher's policies and lease beside those it has.
CREATE FUNCTION @extschema@.pg_reaper_keep_own() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a
    WHERE a.backend_type OPERATOR(pg_catalog.~~) 'logical replication%'
  ) THEN
    RETURN NULL;
  END IF;
  IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.pg_reaper_keep_own() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.pg_reaper_keep_own() IS
  'Keeps logical replication from writing to the tables of pg_reaper itself';
CREATE TRIGGER pg_reaper_keep_own BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.pg_reaper_policy
  FOR EACH ROW EXECUTE FUNCTION @extschema@.pg_reaper_keep_own();
ALTER TABLE @extschema@.pg_reaper_policy ENABLE REPLICA TRIGGER pg_reaper_keep_own;
CREATE TRIGGER pg_reaper_keep_own BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.pg_reaper_lease
  FOR EACH ROW EXECUTE FUNCTION @extschema@.pg_reaper_keep_own();
ALTER TABLE @extschema@.pg_reaper_lease ENABLE REPLICA TRIGGER pg_reaper_keep_own;
CREATE TRIGGER pg_reaper_keep_own BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.pg_reaper_quarantine
  FOR EACH ROW EXECUTE FUNCTION @extschema@.pg_reaper_keep_own();
ALTER TABLE @extschema@.pg_reaper_quarantine ENABLE REPLICA TRIGGER pg_reaper_keep_own;

-- Two functions have a parameter or a column more. Whoever may run the old ones may run the new ones.
ALTER FUNCTION @extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint) RENAME TO pg_reaper_sweep_before;
ALTER FUNCTION @extschema@.pg_reaper_status() RENAME TO pg_reaper_status_before;
CREATE FUNCTION @extschema@.pg_reaper_sweep(
  relation pg_catalog.regclass DEFAULT NULL,
  max_rows bigint DEFAULT NULL,
  policy bigint DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_sweep_policy_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_sweep IS
  'One sweep now, in this transaction, of every policy, of those of one table, or of one; returns rows reaped';

CREATE FUNCTION @extschema@.pg_reaper_start() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_start_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_start() IS
  'Starts the worker of this database, after pg_reaper_stop() or without the preload; returns its process id';

CREATE FUNCTION @extschema@.pg_reaper_stop() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_stop_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_stop() IS
  'Stops the worker of this database until pg_reaper_start() or a restart; returns how many there were';

CREATE FUNCTION @extschema@.pg_reaper_resume() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_resume_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_resume() IS
  'Has passes go on, in every database: takes the clock for right as it is, and ends the startup grace; returns whether anything held them';

CREATE FUNCTION @extschema@.pg_reaper_status(
  OUT database text,
  OUT pid integer,
  OUT state text,
  OUT leader text,
  OUT term bigint,
  OUT started_at timestamptz,
  OUT last_cycle timestamptz,
  OUT last_sweep timestamptz,
  OUT rows_reaped bigint,
  OUT errors bigint,
  OUT failures_in_a_row integer,
  OUT last_error text,
  OUT last_error_at timestamptz,
  OUT held text
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_reaper_status_held_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_status() IS
  'What each worker of this server is doing, from shared memory; last_sweep is the last successful one';

CREATE FUNCTION @extschema@.pg_reaper_announce() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_announce_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_announce() IS
  'Has the launcher look into this database when the transaction commits; CREATE EXTENSION calls it';

REVOKE ALL ON FUNCTION
  @extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint, bigint),
  @extschema@.pg_reaper_status(),
  @extschema@.pg_reaper_start(),
  @extschema@.pg_reaper_stop(),
  @extschema@.pg_reaper_resume(),
  @extschema@.pg_reaper_announce()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.pg_reaper_status() TO pg_monitor;
DO $$
DECLARE
  may record;
BEGIN
  FOR may IN
    SELECT renamed.new,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS whoever,
      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS further
    FROM (VALUES
      ('@extschema@.pg_reaper_sweep_before(pg_catalog.regclass, bigint)'::pg_catalog.regprocedure,
        '@extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint, bigint)'::pg_catalog.regprocedure),
      ('@extschema@.pg_reaper_status_before()'::pg_catalog.regprocedure,
        '@extschema@.pg_reaper_status()'::pg_catalog.regprocedure)
    ) AS renamed (old, new)
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) renamed.old, pg_catalog.aclexplode(p.proacl) a
    WHERE a.grantee OPERATOR(pg_catalog.<>) p.proowner
  LOOP
    EXECUTE pg_catalog.format(
      'GRANT EXECUTE ON FUNCTION %s TO %s%s', may.new, may.whoever, may.further);
  END LOOP;
END
$$;
DROP FUNCTION @extschema@.pg_reaper_sweep_before(pg_catalog.regclass, bigint);
DROP FUNCTION @extschema@.pg_reaper_status_before();

CREATE FUNCTION @extschema@.pg_reaper_add_policy(
  relation pg_catalog.regclass,
  expires_column name,
  ttl interval DEFAULT NULL,
  filter text DEFAULT NULL,
  name text DEFAULT NULL,
  batch_size integer DEFAULT NULL,
  rate_limit integer DEFAULT NULL,
  sweep_interval interval DEFAULT NULL,
  time_zone text DEFAULT NULL,
  enabled boolean DEFAULT true
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_add_policy_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_add_policy IS
  'Reaps the rows of a table whose expires_column, and ttl after it, has passed and that meet filter; returns the id of the policy';

CREATE FUNCTION @extschema@.pg_reaper_alter_policy(
  policy bigint,
  expires_column name DEFAULT NULL,
  ttl interval DEFAULT NULL,
  filter text DEFAULT NULL,
  name text DEFAULT NULL,
  batch_size integer DEFAULT NULL,
  rate_limit integer DEFAULT NULL,
  sweep_interval interval DEFAULT NULL,
  time_zone text DEFAULT NULL,
  stuck_timeout interval DEFAULT NULL,
  enabled boolean DEFAULT NULL,
  reset text[] DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_alter_policy_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_alter_policy IS
  'Changes a policy: what is NULL stays as it is, what reset names goes back to none';

CREATE FUNCTION @extschema@.pg_reaper_drop_policy(policy bigint) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_drop_policy_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_drop_policy IS
  'Ends a policy; its table stays as it is';

CREATE FUNCTION @extschema@.pg_reaper_preview(
  policy bigint DEFAULT NULL,
  max_rows integer DEFAULT 100,
  OUT policy_id bigint,
  OUT relation pg_catalog.regclass,
  OUT tid text,
  OUT deadline timestamptz,
  OUT reason text,
  OUT row_data json
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_preview_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_preview IS
  'What the next pass would reap, and why; it changes nothing';

CREATE FUNCTION @extschema@.pg_reaper_suspended(
  OUT policy bigint,
  OUT reason text
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_suspended_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_suspended IS
  'Which policies cannot be swept as they are now, and why; see pg_reaper_policies';

CREATE VIEW @extschema@.pg_reaper_policies AS
SELECT p.id AS policy, p.name, p.relation, p.kind,
  COALESCE(p.expires_column, 'expires_at') AS expires_column,
  p.ttl, p.filter, p.time_zone, p.batch_size, p.rate_limit, p.sweep_interval, p.stuck_timeout,
  p.enabled, s.reason AS suspended,
  (SELECT pg_catalog.count(*) FROM @extschema@.pg_reaper_quarantine q
   WHERE q.policy OPERATOR(pg_catalog.=) p.id) AS quarantined,
  p.builtin, p.created_at
FROM @extschema@.pg_reaper_policy p
LEFT JOIN @extschema@.pg_reaper_suspended() s ON s.policy OPERATOR(pg_catalog.=) p.id
ORDER BY p.id;
COMMENT ON VIEW @extschema@.pg_reaper_policies IS
  'The policies, and why one is suspended: it is not swept until that is mended';

REVOKE ALL ON @extschema@.pg_reaper_policies FROM PUBLIC;
GRANT SELECT ON @extschema@.pg_reaper_policies TO pg_monitor;
REVOKE ALL ON FUNCTION
  @extschema@.pg_reaper_add_policy,
  @extschema@.pg_reaper_alter_policy,
  @extschema@.pg_reaper_drop_policy,
  @extschema@.pg_reaper_preview,
  @extschema@.pg_reaper_suspended
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.pg_reaper_suspended TO pg_monitor;

SELECT @extschema@.pg_reaper_announce();
