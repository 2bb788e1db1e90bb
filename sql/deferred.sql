-- $1 table. Whether it has constraints that are deferred unless told otherwise.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_trigger
  WHERE tgrelid OPERATOR(pg_catalog.=) $1 AND tgdeferrable AND tginitdeferred)
