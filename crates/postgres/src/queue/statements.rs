//! The queue's statements. `statement_timestamp()` and not `now()`, since it is the same throughout a statement and new in the next.

pub(super) const FIND: &str = "SELECT id FROM tidemill_queues WHERE name = $1";

/// An update only where something changes, so that many managers that start at once do not write.
pub(super) const ENSURE: &str = "
INSERT INTO tidemill_queues AS q (name, max_receives, dead_letter, retention_us) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET max_receives = excluded.max_receives, dead_letter = excluded.dead_letter, retention_us = excluded.retention_us
WHERE (q.max_receives, q.dead_letter, q.retention_us) IS DISTINCT FROM (excluded.max_receives, excluded.dead_letter, excluded.retention_us)";

pub(super) const SEND: &str = "
INSERT INTO tidemill_messages (queue, due, sent_at, arrived_at, body)
SELECT $1, statement_timestamp() + delay * interval '1 microsecond', statement_timestamp(), statement_timestamp(), body
FROM unnest($2::bytea[], $3::bigint[]) WITH ORDINALITY AS new(body, delay, n) ORDER BY n
RETURNING id";

/// The kinds of rows in the answer of [`RECEIVE`].
pub(super) const DELIVERED: i32 = 0;
pub(super) const BURIED: i32 = 1;
pub(super) const DROPPED: i32 = 2;

/// Takes the head of what is due: drops what is past retention, buries what was delivered too often, leases the rest. When nothing is
/// due the answer says in how many microseconds something will be.
pub(super) const RECEIVE: &str = "
WITH settings AS MATERIALIZED (SELECT max_receives, dead_letter, retention_us FROM tidemill_queues WHERE id = $1),
head AS MATERIALIZED (
  SELECT m.id, m.receives, m.arrived_at FROM tidemill_messages m
  WHERE m.queue = $1 AND m.due <= statement_timestamp() ORDER BY m.due, m.id LIMIT $2 FOR UPDATE SKIP LOCKED),
fate AS MATERIALIZED (
  SELECT h.id, s.dead_letter,
    CASE WHEN h.arrived_at + s.retention_us * interval '1 microsecond' <= statement_timestamp() THEN 2
         WHEN s.dead_letter IS NOT NULL AND h.receives >= s.max_receives THEN 1 ELSE 0 END AS fate
  FROM head h CROSS JOIN settings s),
delivered AS (
  UPDATE tidemill_messages m SET due = statement_timestamp() + $3::bigint * interval '1 microsecond',
    receives = m.receives + 1, delivery = m.delivery + 1
  FROM fate f WHERE m.queue = $1 AND m.id = f.id AND f.fate = 0
  RETURNING m.id, m.delivery, m.receives, m.sent_at, m.body),
buried AS (
  UPDATE tidemill_messages m SET queue = f.dead_letter, due = statement_timestamp(), arrived_at = statement_timestamp(),
    died_in = $1, died_receives = m.receives, receives = 0, delivery = m.delivery + 1
  FROM fate f WHERE m.queue = $1 AND m.id = f.id AND f.fate = 1 RETURNING f.dead_letter),
dropped AS (DELETE FROM tidemill_messages m USING fate f WHERE m.queue = $1 AND m.id = f.id AND f.fate = 2 RETURNING 1)
SELECT 0, id, delivery, receives, sent_at, body FROM delivered
UNION ALL SELECT 1, count(*), dead_letter::bigint, NULL, NULL, NULL FROM buried GROUP BY dead_letter
UNION ALL SELECT 2, NULL, NULL, NULL, NULL, NULL WHERE EXISTS (SELECT FROM dropped)
UNION ALL SELECT 3, (extract(epoch FROM next.due - statement_timestamp()) * 1000000)::bigint, NULL, NULL, NULL, NULL
  FROM (SELECT due FROM tidemill_messages WHERE queue = $1 AND NOT EXISTS (SELECT FROM head) ORDER BY due LIMIT 1) next";

pub(super) const ACK: &str = "
DELETE FROM tidemill_messages m USING unnest($2::bigint[], $3::bigint[]) AS r(id, delivery)
WHERE m.queue = $1 AND m.id = r.id AND m.delivery = r.delivery RETURNING m.id, m.delivery";

pub(super) const EXTEND: &str = "
UPDATE tidemill_messages m SET due = statement_timestamp() + $4::bigint * interval '1 microsecond'
FROM unnest($2::bigint[], $3::bigint[]) AS r(id, delivery)
WHERE m.queue = $1 AND m.id = r.id AND m.delivery = r.delivery RETURNING m.id, m.delivery";

/// A message that has never been received and is not due is delayed; one that has been is leased.
pub(super) const STATS: &str = "
SELECT count(*) FILTER (WHERE due <= statement_timestamp()),
  count(*) FILTER (WHERE due > statement_timestamp() AND receives = 0),
  count(*) FILTER (WHERE due > statement_timestamp() AND receives > 0),
  (extract(epoch FROM statement_timestamp() - min(sent_at)) * 1000000)::bigint
FROM tidemill_messages m
WHERE queue = $1 AND (due > statement_timestamp() OR arrived_at + (SELECT retention_us FROM tidemill_queues WHERE id = $1)
  * interval '1 microsecond' > statement_timestamp())";

pub(super) const LIST: &str = "
SELECT q.name, q.max_receives, d.name, q.retention_us,
  count(m.id) FILTER (WHERE m.due <= statement_timestamp()),
  count(m.id) FILTER (WHERE m.due > statement_timestamp() AND m.receives = 0),
  count(m.id) FILTER (WHERE m.due > statement_timestamp() AND m.receives > 0),
  (extract(epoch FROM statement_timestamp() - min(m.sent_at)) * 1000000)::bigint
FROM tidemill_queues q LEFT JOIN tidemill_queues d ON d.id = q.dead_letter
LEFT JOIN tidemill_messages m ON m.queue = q.id
  AND (m.due > statement_timestamp() OR m.arrived_at + q.retention_us * interval '1 microsecond' > statement_timestamp())
GROUP BY q.id, d.name ORDER BY q.name";

pub(super) const BROWSE: &str = "
SELECT m.id, m.body, m.receives + m.died_receives, m.sent_at, d.name
FROM tidemill_messages m JOIN tidemill_queues q ON q.id = m.queue LEFT JOIN tidemill_queues d ON d.id = m.died_in
WHERE m.queue = $1
  AND (m.due > statement_timestamp() OR m.arrived_at + q.retention_us * interval '1 microsecond' > statement_timestamp())
ORDER BY m.id LIMIT $2";

/// Messages that nobody has at hand go to `$2`, or without it to where they died; those that died nowhere stay. Their place in line is
/// that of a new message.
macro_rules! redrive {
    ($which:literal) => {
        concat!(
            "WITH chosen AS MATERIALIZED (
               SELECT id, COALESCE($2, died_in) AS target FROM tidemill_messages
               WHERE queue = $1 AND due <= statement_timestamp() AND COALESCE($2, died_in) IS NOT NULL AND ",
            $which,
            " FOR UPDATE SKIP LOCKED),
             moved AS (
               UPDATE tidemill_messages m SET queue = c.target, due = statement_timestamp(), arrived_at = statement_timestamp(),
                 receives = 0, delivery = m.delivery + 1, died_in = NULL, died_receives = 0
               FROM chosen c WHERE m.queue = $1 AND m.id = c.id RETURNING m.queue)
             SELECT queue, count(*) FROM moved GROUP BY queue"
        )
    };
}

pub(super) const REDRIVE_ALL: &str = redrive!("true ORDER BY due, id LIMIT $3");
pub(super) const REDRIVE_CHOSEN: &str = redrive!("id = ANY($3::bigint[])");

/// The newest message of any queue: a purge leaves those that are sent while it runs.
pub(super) const LAST: &str = "SELECT COALESCE(max(last_value), 0) FROM pg_sequences
WHERE schemaname = current_schema() AND sequencename = 'tidemill_messages_id_seq'";

pub(super) const PURGE: &str = "
DELETE FROM tidemill_messages m USING (
  SELECT id FROM tidemill_messages WHERE queue = $1 AND id <= $2 ORDER BY id LIMIT $3 FOR UPDATE) old
WHERE m.queue = $1 AND m.id = old.id RETURNING 1";
