CREATE FUNCTION @extschema@.pg_reaper_sweep(
  relation pg_catalog.regclass DEFAULT NULL,
  max_rows bigint DEFAULT NULL
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_sweep_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint) IS
  'One sweep now, in this transaction, of every watched table or of one; returns rows reaped';

CREATE FUNCTION @extschema@.pg_reaper_adopt(relation pg_catalog.regclass) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_adopt_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_adopt(pg_catalog.regclass) IS
  'Watches a table of the application that follows the barrier protocol; returns the id of its policy';

CREATE FUNCTION @extschema@.pg_reaper_disown(relation pg_catalog.regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_disown_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_disown(pg_catalog.regclass) IS
  'Stops watching an adopted table, which stays as it is';

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
  OUT last_error_at timestamptz
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_reaper_status_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_status() IS
  'What each worker of this server is doing, from shared memory; last_sweep is the last successful one';

CREATE FUNCTION @extschema@.pg_reaper_start() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_start_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_start() IS
  'Starts the worker of this database, after pg_reaper_stop() or without the preload; returns its process id';

CREATE FUNCTION @extschema@.pg_reaper_stop() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_stop_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_stop() IS
  'Stops the worker of this database until pg_reaper_start() or a restart; returns how many there were';

CREATE FUNCTION @extschema@.pg_reaper_announce() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_reaper_announce_wrapper';
COMMENT ON FUNCTION @extschema@.pg_reaper_announce() IS
  'Has the launcher look into this database when the transaction commits; CREATE EXTENSION calls it';

REVOKE ALL ON FUNCTION
  @extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint),
  @extschema@.pg_reaper_adopt(pg_catalog.regclass),
  @extschema@.pg_reaper_disown(pg_catalog.regclass),
  @extschema@.pg_reaper_status(),
  @extschema@.pg_reaper_start(),
  @extschema@.pg_reaper_stop(),
  @extschema@.pg_reaper_announce()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.pg_reaper_status() TO pg_monitor;

SELECT @extschema@.pg_reaper_announce();
