-- From 0.1.0 to 0.2.0: the worker of a database can be started and stopped, and the launcher is
-- told of new extensions.

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
  @extschema@.pg_reaper_start(),
  @extschema@.pg_reaper_stop(),
  @extschema@.pg_reaper_announce()
FROM PUBLIC;

SELECT @extschema@.pg_reaper_announce();
