-- $1 policy, $2 the version of its row, $3 what its words stand for.
UPDATE @schema@.pg_reaper_policy SET meaning = $3
WHERE id = (
  SELECT p.id FROM @schema@.pg_reaper_policy p
  WHERE p.id = $1 AND concat(p.ctid, p.xmin) = $2
  FOR UPDATE SKIP LOCKED)
