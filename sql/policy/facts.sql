-- $1 policy. What decides whether its settings are valid: of each that may be wrong, how it is
-- spelt where it is.
SELECT p.kind OPERATOR(pg_catalog.=) 'barrier', p.expires_column::text, @type@,
  CASE WHEN p.ttl < '0'::interval OR p.ttl::text ~ 'infinity' THEN p.ttl::text END,
  CASE WHEN p.time_zone IS NOT NULL AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_timezone_names() z WHERE lower(z.name) = lower(p.time_zone))
    THEN p.time_zone END,
  CASE WHEN p.batch_size NOT BETWEEN 1 AND @most@ THEN p.batch_size::text END,
  CASE WHEN p.rate_limit < 1 THEN p.rate_limit::text END,
  CASE WHEN p.sweep_interval <= '0'::interval OR p.sweep_interval > '1 year'::interval
    THEN p.sweep_interval::text END,
  CASE WHEN p.stuck_timeout < '0'::interval OR p.stuck_timeout > '1000 years'::interval
    THEN p.stuck_timeout::text END,
  CASE WHEN p.name = '' THEN p.name END,
  NULL,
  p.filter,
  p.ttl IS NOT NULL, p.time_zone IS NOT NULL, p.stuck_timeout IS NOT NULL,
  p.meaning
FROM @schema@.pg_reaper_policy p
JOIN pg_catalog.pg_class c ON c.oid = p.relation
WHERE p.id = $1
