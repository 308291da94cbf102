"""The tables of ``STORE/daemon/state.db``, and what always holds of them.

Times are ns since the epoch, 0 for "not yet" or "never". Lists and objects are JSON text. Texts that are paths inside a
point are JSON, whose escapes keep bytes that are not UTF-8. A schema is never changed, only followed by the next:
``MIGRATIONS[n]`` leads from version n to n + 1, ``PRAGMA user_version`` says which a file has.
"""

from __future__ import annotations

APPLICATION = (
    0x48464453  # "HFDS": of PRAGMA application_id, so that another's file is not taken for ours
)

_FIRST = """
-- Write windows. state: open -> committing -> committed, open -> abandoned, committing -> open (no point was made).
-- point: of committing the planned id, of committed the one that was made, else ''. planned_ns goes with it, and
-- note, the row of notes that the commit will write (JSON). resumed: not used, marks say what hooks are at work.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    mount TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'committing', 'committed', 'abandoned')),
    begun_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL DEFAULT 0,
    holder TEXT NOT NULL,
    label TEXT NOT NULL,
    point TEXT NOT NULL DEFAULT '',
    planned_ns INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '',
    resumed INTEGER NOT NULL DEFAULT 0,
    CHECK ((point <> '') = (state IN ('committing', 'committed'))),
    CHECK ((ended_ns <> 0) = (state IN ('committed', 'abandoned')))
) STRICT;
-- A mount has at most one session that is open or committing.
CREATE UNIQUE INDEX sessions_open ON sessions (mount) WHERE state IN ('open', 'committing');
CREATE INDEX sessions_begun ON sessions (begun_ns);

-- Texts kept with a session and its point. size -1: still being sent, told to nobody. point is set when the session is
-- committed. files: of a log, {"database": ["file", ...]} as JSON, '' for none. The id is never used again.
CREATE TABLE attachments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('log', 'hook')),
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    session TEXT NOT NULL,
    point TEXT NOT NULL DEFAULT '',
    files TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX attachments_session ON attachments (session);
CREATE INDEX attachments_point ON attachments (point);
-- Their content in parts of at most 1 MiB, numbered from 0 without gaps; together they have the attachment's size.
CREATE TABLE attachment_parts (
    attachment INTEGER NOT NULL,
    number INTEGER NOT NULL,
    content ANY NOT NULL,
    PRIMARY KEY (attachment, number)
) STRICT;

-- What is known of a point beside the engine's. A point without a row: nobody knows what was
-- open, so crash-consistent, as any is; not kept.
-- open_files: the first of those open for writing. kept: retention leaves it alone.
CREATE TABLE notes (
    point TEXT PRIMARY KEY,
    session TEXT NOT NULL DEFAULT '',
    consistency TEXT NOT NULL DEFAULT 'crash-consistent',
    open_files TEXT NOT NULL DEFAULT '[]',
    kept INTEGER NOT NULL DEFAULT 0
) STRICT;

-- digest: BLAKE2b of the secret, which is nowhere. mounts: JSON list, empty for all. used_ns: to the minute.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest ANY NOT NULL,
    role TEXT NOT NULL,
    mounts TEXT NOT NULL,
    label TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    revoked_ns INTEGER NOT NULL DEFAULT 0,
    used_ns INTEGER NOT NULL DEFAULT 0
) STRICT;

-- queued -> running -> done, failed, cancelled; queued -> cancelled, failed; running -> queued, to go on later.
-- The id is never used again.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    mount TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    started_ns INTEGER NOT NULL DEFAULT 0,
    ended_ns INTEGER NOT NULL DEFAULT 0,
    options TEXT NOT NULL,
    progress TEXT NOT NULL DEFAULT '{}',
    result TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT '{}',
    CHECK ((ended_ns <> 0) = (state IN ('done', 'failed', 'cancelled')))
) STRICT;
-- What of a job is still there: of a restore into a mount what is shown under restores/JOB ('' its target),
-- of another the directory that was filled. Gone with the restore. path: JSON of a path in the point, or of an object
-- {path, paths, location}.
CREATE TABLE restores (
    job INTEGER PRIMARY KEY,
    mount TEXT NOT NULL,
    point TEXT NOT NULL,
    path TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT;

-- POSTs that name a key. response '' while the first of them runs.
CREATE TABLE keys (
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    response TEXT NOT NULL DEFAULT '',
    time_ns INTEGER NOT NULL,
    PRIMARY KEY (principal, name)
) STRICT;

-- Mounts served over NFS; client: a network as ipaddress writes it.
CREATE TABLE exports (
    mount TEXT NOT NULL,
    client TEXT NOT NULL,
    read_only INTEGER NOT NULL,
    squash TEXT NOT NULL,
    PRIMARY KEY (mount, client)
) STRICT;

-- What was asked for by hand. running: 1 started, 0 stopped, -1 as the configuration says. path: '' as it says.
-- deleting: the mount goes, nothing begins in it any more.
CREATE TABLE wanted (
    mount TEXT PRIMARY KEY,
    running INTEGER NOT NULL DEFAULT -1,
    path TEXT NOT NULL DEFAULT '',
    deleting INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The store's statistics, a row an hour.
CREATE TABLE history (
    time_ns INTEGER PRIMARY KEY,
    numbers TEXT NOT NULL
) STRICT;

-- Small values by name: what retention last saw of the clock, schedules, hooks at work.
CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT
"""

MIGRATIONS = (_FIRST,)


def statements(script: str) -> list[str]:
    """The statements of a script; no semicolon stands in a text or a comment of it."""
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [one.strip() for one in "\n".join(lines).split(";") if one.strip()]
