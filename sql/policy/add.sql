-- The parameters of pg_reaper_add_policy(), in order.
INSERT INTO @schema@.pg_reaper_policy (
  kind, relation, expires_column, ttl, filter, name, batch_size, rate_limit, sweep_interval,
  time_zone, enabled)
VALUES (
  'expiry', $1::pg_catalog.regclass, $2, $3, $4, $5, $6, $7, $8, $9,
  COALESCE($10, true))
RETURNING id
