//! The statements that write objects.

pub(super) const NUMBER: &str = "SELECT nextval('tidemill_blobs')";

/// Begins contents of which nobody knows yet, and puts them on the list of what goes away by itself.
pub(super) const BEGIN: &str = "
WITH b AS (SELECT nextval('tidemill_blobs') AS blob)
INSERT INTO tidemill_garbage (blob, due) SELECT blob, statement_timestamp() + interval '1 day' FROM b RETURNING blob";

pub(super) const CHUNK: &str = "
INSERT INTO tidemill_chunks (blob, at, size, data)
SELECT $1, c.at, octet_length(c.data), c.data FROM unnest($2::bigint[], $3::bytea[]) AS c(at, data)";

pub(super) const COPY: &str = "
INSERT INTO tidemill_chunks (blob, at, size, data)
SELECT $1, at, size, data FROM tidemill_chunks WHERE blob = $2 AND at >= $3 AND at < $4 RETURNING size";

/// Makes the object name contents, if the condition holds. The contents are pieces that come along; or they are one or more that
/// were begun, which become one, each behind the other, and go off the list. If one has gone away meanwhile the whole is undone.
pub(super) const NAME: &str = "
WITH old AS MATERIALIZED (SELECT blob, etag FROM tidemill_objects WHERE path = $1),
ok AS MATERIALIZED (
  SELECT CASE $2::smallint WHEN 0 THEN true WHEN 1 THEN NOT EXISTS (SELECT FROM old)
         ELSE EXISTS (SELECT FROM old WHERE etag = $3) END AS holds),
named AS (
  INSERT INTO tidemill_objects (path, blob, size, etag, modified, attributes, contents)
  SELECT $1, ($8::bigint[])[1], $4, $5, statement_timestamp(), $6, $7 FROM ok WHERE holds
  ON CONFLICT (path) DO UPDATE SET blob = excluded.blob, size = excluded.size, etag = excluded.etag, modified = excluded.modified,
    attributes = excluded.attributes, contents = excluded.contents
  RETURNING 1),
claimed AS (DELETE FROM tidemill_garbage g USING ok WHERE ok.holds AND g.blob = ANY($8::bigint[]) RETURNING 1),
joined AS (
  UPDATE tidemill_chunks c SET blob = ($8::bigint[])[1], at = c.at + p.start
  FROM unnest($8::bigint[], $9::bigint[]) WITH ORDINALITY AS p(blob, start, n), ok
  WHERE ok.holds AND p.n > 1 AND c.blob = p.blob RETURNING 1),
stored AS (
  INSERT INTO tidemill_chunks (blob, at, size, data)
  SELECT ($8::bigint[])[1], c.at, octet_length(c.data), c.data FROM unnest($10::bigint[], $11::bytea[]) AS c(at, data), ok WHERE ok.holds),
left_over AS (
  INSERT INTO tidemill_garbage (blob, due) SELECT old.blob, statement_timestamp() + interval '15 minutes' FROM old, ok
  WHERE ok.holds AND old.blob IS NOT NULL ON CONFLICT DO NOTHING)
SELECT holds, (SELECT etag FROM old), CASE WHEN holds THEN tidemill_expect((SELECT count(*) FROM claimed),
  CASE WHEN cardinality($10::bigint[]) > 0 THEN 0 ELSE cardinality($8::bigint[]) END) END FROM ok";

pub(super) const RENAME: &str = "
WITH old AS MATERIALIZED (SELECT blob FROM tidemill_objects WHERE path = $2),
ok AS MATERIALIZED (
  SELECT EXISTS (SELECT FROM tidemill_objects WHERE path = $1) AS there, $3::boolean AND EXISTS (SELECT FROM old) AS taken),
gone AS (
  DELETE FROM tidemill_objects o USING ok WHERE o.path = $1 AND $1 <> $2 AND NOT ok.taken
  RETURNING o.blob, o.size, o.etag, o.modified, o.attributes, o.contents),
named AS (
  INSERT INTO tidemill_objects (path, blob, size, etag, modified, attributes, contents)
  SELECT $2, blob, size, etag, modified, attributes, contents FROM gone
  ON CONFLICT (path) DO UPDATE SET blob = excluded.blob, size = excluded.size, etag = excluded.etag, modified = excluded.modified,
    attributes = excluded.attributes, contents = excluded.contents
  RETURNING 1),
left_over AS (
  INSERT INTO tidemill_garbage (blob, due) SELECT old.blob, statement_timestamp() + interval '15 minutes' FROM old, gone
  WHERE old.blob IS NOT NULL ON CONFLICT DO NOTHING)
SELECT there, taken FROM ok";

pub(super) const DELETE: &str = "
WITH gone AS (DELETE FROM tidemill_objects WHERE path = ANY($1::text[]) RETURNING blob)
INSERT INTO tidemill_garbage (blob, due) SELECT blob, statement_timestamp() + interval '15 minutes' FROM gone
WHERE blob IS NOT NULL ON CONFLICT DO NOTHING";
