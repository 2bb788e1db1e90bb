-- What is watched: each policy with the tables that hold its rows (itself, its leaves), their
-- owners, what it is set to, and the types of its column and of those of the barrier protocol. A
-- policy whose table is gone has none. Settings are read by way of jsonb, so that those which an
-- older version of the extension does not have yet are null.
WITH RECURSIVE policy AS (
  SELECT p.id, p.builtin, p.relation::pg_catalog.oid AS relation,
    pg_catalog.concat(p.ctid, p.xmin) AS version, s.*
  FROM @schema@.pg_reaper_policy p,
    pg_catalog.jsonb_to_record(pg_catalog.to_jsonb(p)) AS s (
      kind text, expires_column text, ttl interval, time_zone text, filter text, enabled boolean,
      batch_size bigint, rate_limit bigint, sweep_interval interval, stuck_timeout interval,
      meaning text)
), member (policy, relation) AS (
  SELECT p.id, p.relation FROM policy p
  -- A child may have two parents that are children of one.
  UNION
  SELECT m.policy, i.inhrelid
  FROM member m
  JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.relation
  WHERE NOT i.inhdetachpending
)
SELECT m.policy, p.builtin, m.relation, c.relowner, c.relkind::text,
  CASE WHEN c.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END,
  p.kind, p.expires_column, pg_catalog.quote_ident(p.expires_column), @type@,
  pg_catalog.quote_literal(p.ttl) || '::pg_catalog.interval',
  EXTRACT(YEAR FROM p.ttl) OPERATOR(pg_catalog.<>) 0
    OR EXTRACT(MONTH FROM p.ttl) OPERATOR(pg_catalog.<>) 0,
  pg_catalog.quote_literal(p.time_zone), p.filter, p.enabled IS NOT FALSE,
  p.batch_size, p.rate_limit,
  (EXTRACT(EPOCH FROM p.sweep_interval) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  (EXTRACT(EPOCH FROM p.stuck_timeout) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  r.relowner, p.relation,
  @trigger_of_another@,
  p.version, p.meaning,
  @types@
FROM member m
JOIN policy p ON p.id OPERATOR(pg_catalog.=) m.policy
LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) p.relation
LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid IS NULL
  -- A temporary child can only be seen by its own session.
  OR c.relkind OPERATOR(pg_catalog.<>) 'p' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
ORDER BY m.policy, m.relation
