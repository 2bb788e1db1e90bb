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

REVOKE ALL ON FUNCTION
  @extschema@.pg_reaper_sweep(pg_catalog.regclass, bigint),
  @extschema@.pg_reaper_adopt(pg_catalog.regclass),
  @extschema@.pg_reaper_disown(pg_catalog.regclass),
  @extschema@.pg_reaper_status()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.pg_reaper_status() TO pg_monitor;

-- Nobody should believe that rows are reaped when no worker comes.
DO $$
DECLARE
  served text := pg_catalog.current_setting('pg_reaper.databases', true);
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.regexp_split_to_table(
      pg_catalog.current_setting('shared_preload_libraries'), '\s*,\s*') AS library
    WHERE pg_catalog.btrim(library, ' "') OPERATOR(pg_catalog.~) '(^|/)pg_reaper(\.so)?$'
  ) THEN
    RAISE WARNING USING
      MESSAGE = 'pg_reaper is not in shared_preload_libraries, so no worker reaps anything',
      HINT = 'Add it (shared_preload_libraries = ''pg_reaper'') and restart the server. '
             'Until then, SELECT @extschema@.pg_reaper_sweep() reaps by hand.';
  ELSIF served OPERATOR(pg_catalog.<>) pg_catalog.current_database()::text THEN
    RAISE WARNING USING
      MESSAGE = pg_catalog.format('the worker of pg_reaper serves database "%s", not this one', served),
      HINT = pg_catalog.format('Set pg_reaper.databases = ''%s'' in postgresql.conf and reload. '
             'Until then, SELECT @extschema@.pg_reaper_sweep() reaps by hand.',
             pg_catalog.current_database());
  END IF;
END
$$;
