-- The parameters of pg_reaper_alter_policy(), in order: NULL leaves a setting as it is, and what
-- $12 names goes back to none.
UPDATE @schema@.pg_reaper_policy SET
  expires_column = COALESCE($2, expires_column),
  ttl = COALESCE($3, CASE WHEN 'ttl' = ANY ($12) THEN NULL ELSE ttl END),
  filter = COALESCE($4, CASE WHEN 'filter' = ANY ($12) THEN NULL ELSE filter END),
  name = COALESCE($5, CASE WHEN 'name' = ANY ($12) THEN NULL ELSE name END),
  batch_size = COALESCE($6, CASE WHEN 'batch_size' = ANY ($12) THEN NULL ELSE batch_size END),
  rate_limit = COALESCE($7, CASE WHEN 'rate_limit' = ANY ($12) THEN NULL ELSE rate_limit END),
  sweep_interval = COALESCE($8, CASE WHEN 'sweep_interval' = ANY ($12) THEN NULL ELSE sweep_interval END),
  time_zone = COALESCE($9, CASE WHEN 'time_zone' = ANY ($12) THEN NULL ELSE time_zone END),
  stuck_timeout = COALESCE($10, CASE WHEN 'stuck_timeout' = ANY ($12) THEN NULL ELSE stuck_timeout END),
  enabled = COALESCE($11, enabled)
WHERE id = $1
