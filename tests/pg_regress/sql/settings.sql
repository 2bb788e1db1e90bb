-- Settings: what they are until somebody sets them, and what is refused by name.
LOAD 'pg_reaper';
SELECT name, boot_val, unit, min_val, max_val, enumvals, context FROM pg_settings
WHERE name LIKE 'pg\_reaper.%' ORDER BY name COLLATE "C";
-- Each says what it means.
SELECT name FROM pg_settings WHERE name LIKE 'pg\_reaper.%' AND (short_desc = '' OR extra_desc IS NULL);

-- Out of range, or nothing of the kind. Before 16 the bounds are told without their units.
\set VERBOSITY sqlstate
\pset tuples_only on
\set said 'SELECT regexp_replace(:\'LAST_ERROR_MESSAGE\', \'(\\d) m?s( \\.\\.|\\))\', \'\\1\\2\', \'g\');'
ALTER SYSTEM SET pg_reaper.interval = 0;
:said
ALTER SYSTEM SET pg_reaper.interval = '2h';
:said
ALTER SYSTEM SET pg_reaper.lease_duration = -1;
:said
ALTER SYSTEM SET pg_reaper.lease_duration = '25h';
:said
ALTER SYSTEM SET pg_reaper.enabled = 'perhaps';
:said
ALTER SYSTEM SET pg_reaper.leadership = 'election';
:said
SET pg_reaper.batch_size = 0;
:said
SET pg_reaper.batch_size = 100001;
:said
SET pg_reaper.batch_size = 'many';
:said
SET pg_reaper.stuck_timeout = -1;
:said
SET pg_reaper.lock_timeout = 0;
:said
SET pg_reaper.statement_timeout = -1;
:said
SET pg_reaper.log_limit = -1;
:said
ALTER SYSTEM SET pg_reaper.max_clock_jump = '8d';
:said
ALTER SYSTEM SET pg_reaper.startup_grace = -2;
:said
\pset tuples_only off
\set VERBOSITY default

-- A slip of the pen is no new setting.
SET pg_reaper.batchsize = 10;

-- Those of the worker are not a session's or a database's; the others are.
SET pg_reaper.interval = '1s';
ALTER DATABASE regression SET pg_reaper.lease_duration = '1min';
ALTER DATABASE regression SET pg_reaper.batch_size = 500;
ALTER DATABASE regression SET pg_reaper.stuck_timeout = '1d';
ALTER DATABASE regression SET pg_reaper.log_limit = 3;
ALTER DATABASE regression SET pg_reaper.lock_timeout = '3s';
ALTER DATABASE regression SET pg_reaper.statement_timeout = '3s';
\c -
SHOW pg_reaper.batch_size;
SHOW pg_reaper.stuck_timeout;
ALTER DATABASE regression RESET ALL;

-- Nobody but a superuser.
CREATE ROLE regress_nobody;
SET ROLE regress_nobody;
SET pg_reaper.batch_size = 1;
SET pg_reaper.log_limit = 0;
RESET ROLE;
DROP ROLE regress_nobody;
