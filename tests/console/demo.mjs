// What a busy installation looks like: jobs that run, wait, are done, have failed, of several people.

import assert from 'node:assert/strict';

/** A fleet that grows and shrinks while one looks. */
export const SERVER = ['--workers', '1..6', '--slots', '4', '--set', 'fleet.target=30s', '--set', 'fleet.shrink-cooldown=10s'];

const PEOPLE = { media: 'user', platform: 'user', etl: 'operator' };

const THUMBNAILS = `name = "thumbnails"
labels = { project = "catalogue" }

[[stage]]
name = "resize"
array = "1-320"
shell = true
command = "sleep 0.6; head -c $((4000 + index * 7 % 900)) /dev/zero > $out"
`;

const ETL = `name = "nightly-events"
labels = { project = "analytics", day = "2026-11-20" }

[[stage]]
name = "extract"
array = "1-900"
shell = true
command = "echo \\"reading part $index\\"; sleep 1.$((2 + index % 7)); head -c 60000 /dev/zero > $out"

[[stage]]
name = "transform"
from = "extract"
shell = true
retries = 3
command = "sleep 1.$((index % 9)); [ $((index % 23)) -ne 7 ] || [ $attempt -gt 1 ] || exit 75; cp $in $out"

[[stage]]
name = "load"
from = "transform"
mode = "gather"
shell = true
command = "sleep 3; cat $inputs | xargs cat | wc -c | tee $out"
`;

const RENDER = `name = "render-frames"
labels = { project = "trailer", scene = "harbour" }

[[stage]]
name = "frame"
array = "1-600"
shell = true
retries = 1
command = """
echo "frame $index: loading scene harbour.blend"
for tile in 1 2 3 4 5 6; do
  echo "frame $index: tile $tile of 6, 128 samples"
  sleep 1.$((index % 5))
done
echo "frame $index: written"
"""
`;

const INGEST = `name = "ingest-archive"
labels = { project = "archive" }

[[stage]]
name = "unpack"
array = "1-120"
shell = true
retries = 0
command = """
sleep 1.$((index % 4))
case $index in
  17|64) echo "part-$index.tar.gz: unexpected end of file" >&2; exit 2 ;;
  41)    echo "part-$index.tar.gz: checksum does not match the manifest" >&2; exit 3 ;;
  88)    echo "no space left for part-$index" >&2; exit 28 ;;
esac
echo "part-$index: 412 files"
"""
`;

const sweepAfter = (job) => `name = "train-sweep"
after = ["${job}"]
priority = -5
labels = { project = "ranking" }

[[stage]]
name = "fit"
array = "1-48"
shell = true
command = "sleep 20"
`;

const array = (name, last, command) => `name = "${name}"\n[[stage]]\nname = "run"\narray = "1-${last}"\nshell = true\ncommand = "${command}"\n`;

/** Calls of one person. */
function caller(url, token) {
  return async (method, path, body, type = 'application/json') => {
    const sent = type === 'application/json' && body !== undefined ? JSON.stringify(body) : body;
    const response = await fetch(`${url}/api/v1${path}`, { method, headers: { authorization: `Bearer ${token}`, 'content-type': type }, body: sent });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${text}`);
    return text ? JSON.parse(text) : undefined;
  };
}

/** A token for a new user. */
export async function user(mill, name, role) {
  const admin = caller(mill.url, mill.token);
  await admin('POST', '/users', { name, role });
  return (await admin('POST', '/tokens', { user: name, role })).token;
}

/** Submits the text of a job file; gives the job's id. */
export async function submit(mill, text, token = mill.token) {
  return (await caller(mill.url, token)('POST', '/batch/jobs', text, 'application/toml')).id;
}

/** Submits what is over, or stands still, by the time one looks; gives the ids. */
export async function past(mill) {
  const call = caller(mill.url, mill.token);
  const tokens = {};
  for (const [name, role] of Object.entries(PEOPLE)) tokens[name] = await user(mill, name, role);
  const thumbs = await submit(mill, THUMBNAILS, tokens.media);
  const ingest = await submit(mill, INGEST, tokens.platform);
  const old = await submit(mill, array('reindex-search', 400, 'sleep 2'), tokens.platform);
  await call('POST', `/batch/jobs/${old}/cancel`);
  const paused = await submit(mill, array('backfill-2025', 365, 'sleep 1'), tokens.etl);
  await call('POST', `/batch/jobs/${paused}/pause`);
  return { tokens, thumbs, ingest };
}

/** Submits what runs while one looks; gives the ids. */
export async function present(mill, tokens) {
  const render = await submit(mill, RENDER, tokens.platform);
  const etl = await submit(mill, ETL, tokens.etl);
  const sweep = await submit(mill, sweepAfter(etl), tokens.media);
  return { render, etl, sweep };
}
