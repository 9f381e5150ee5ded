-- The database of a data folder. Times are Unix time in seconds.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE projects (
    pk INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    created_at REAL NOT NULL,
    UNIQUE (entity, name)
) STRICT;

CREATE TABLE sweeps (
    pk INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    id TEXT NOT NULL UNIQUE,       -- unique on the whole server, so that an id alone names a sweep
    state TEXT NOT NULL,           -- SweepState
    config TEXT NOT NULL,          -- YAML, unchanged
    seed INTEGER NOT NULL,         -- of the search
    search_end TEXT,               -- why the search ended: exhausted, run_cap, target, ended
    display_name TEXT,
    description TEXT,
    controller TEXT,
    scheduler TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    heartbeat_at REAL,
    unknown TEXT NOT NULL DEFAULT '[]'      -- JSON list: the fields that the imported file lacked
) STRICT;
CREATE INDEX sweeps_of_project ON sweeps (project);

CREATE TABLE agents (
    pk INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    created_at REAL NOT NULL,
    heartbeat_at REAL
) STRICT;
CREATE INDEX agents_of_sweep ON agents (sweep);

CREATE TABLE runs (
    pk INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    id TEXT NOT NULL,
    sweep INTEGER REFERENCES sweeps ON DELETE SET NULL,
    origin TEXT NOT NULL,          -- trial (not handed out), search, queue (by a user), prior
    number INTEGER,                -- 0, 1, 2, ... among the runs that the sweep began
    parameters TEXT,               -- JSON object: the values that the sweep chose
    -- The state as it was last inferred, and the facts that it follows from (scheduling/state_inference.py).
    state TEXT NOT NULL,           -- RunState
    agent INTEGER REFERENCES agents ON DELETE SET NULL,  -- the last agent that it was handed out to
    hand_outs INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL DEFAULT 0,     -- its trial has reported since the last hand-out
    exit_code INTEGER,             -- from the trial's last post
    preempting INTEGER NOT NULL DEFAULT 0,
    given_up INTEGER NOT NULL DEFAULT 0,    -- handed out too often, and no trial reported
    stop_reason TEXT,              -- hyperband, user, cancelled
    stop_at REAL,
    stop_band INTEGER,
    stop_value REAL,
    stop_threshold REAL,
    -- What the trial reported.
    config TEXT NOT NULL DEFAULT '{}',      -- JSON: {name: {"value": ...}}
    summary TEXT NOT NULL DEFAULT '{}',     -- JSON
    display_name TEXT,
    group_name TEXT,
    job_type TEXT,
    description TEXT,
    notes TEXT,
    tags TEXT NOT NULL DEFAULT '[]',        -- JSON list
    host TEXT,
    program TEXT,
    repo TEXT,
    git_commit TEXT,
    history_lines INTEGER NOT NULL DEFAULT 0,
    event_lines INTEGER NOT NULL DEFAULT 0,
    console_lines INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    heartbeat_at REAL,
    ended_at REAL,
    state_when_exported TEXT,      -- of a run that was alive when it was exported; NULL for every other
    unknown TEXT NOT NULL DEFAULT '[]',     -- JSON list: the fields that the imported file lacked
    UNIQUE (project, id)
) STRICT;
CREATE INDEX runs_of_sweep ON runs (sweep);
-- For an agent's heartbeat, which must not look at every run that the sweep ever had.
CREATE INDEX runs_of_sweep_by_state ON runs (sweep, state, origin);
CREATE INDEX living_runs ON runs (state) WHERE state IN ('pending', 'running', 'preempting');

-- A trial numbers its lines and may send them twice. The key (run, line) makes the second time an overwrite.
CREATE TABLE history (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    line INTEGER NOT NULL,
    step INTEGER,
    body TEXT NOT NULL,            -- the JSON text as it was sent, perhaps with NaN and Infinity
    UNIQUE (run, line)
) STRICT;
CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    line INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (run, line)
) STRICT;
CREATE TABLE console (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    line INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (run, line)
) STRICT;

-- The finite values of the sweep's metric, copied from history for search and early stopping (scheduling/points.py).
CREATE TABLE points (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    line INTEGER NOT NULL,         -- of history; negative if it comes from the summary
    value REAL NOT NULL,
    PRIMARY KEY (run, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
    pk INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    name TEXT NOT NULL,
    blob TEXT NOT NULL,            -- the name of its bytes below the data folder's blobs/
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,             -- base64, as W&B gives it
    updated_at REAL NOT NULL,
    UNIQUE (run, name)
) STRICT;

-- Artifacts: versions of a named collection of files, such as the checkpoints of a model.
CREATE TABLE artifacts (
    pk INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    run INTEGER REFERENCES runs ON DELETE SET NULL,  -- the run that logged it
    type TEXT NOT NULL,
    collection TEXT NOT NULL,
    version INTEGER,               -- 0, 1, 2, ... within the collection; NULL before the commit
    state TEXT NOT NULL,           -- PENDING while its files arrive, then COMMITTED
    digest TEXT NOT NULL,          -- of the contents, computed by the client
    client_id TEXT,                -- the client's own id: a repeated request means the same artifact
    description TEXT,
    metadata TEXT,                 -- JSON
    history_step INTEGER,
    size INTEGER NOT NULL DEFAULT 0,
    manifest TEXT,                 -- the blob that lists its files
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (project, collection, version)
) STRICT;
CREATE INDEX artifacts_of_run ON artifacts (run);

CREATE TABLE artifact_files (
    pk INTEGER PRIMARY KEY,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    name TEXT NOT NULL,
    md5 TEXT NOT NULL,             -- as announced; other bytes are refused
    blob TEXT,                     -- NULL until the bytes have arrived
    size INTEGER NOT NULL DEFAULT 0,
    updated_at REAL NOT NULL,
    UNIQUE (artifact, name)
) STRICT;

CREATE TABLE artifact_aliases (
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    project INTEGER NOT NULL,
    collection TEXT NOT NULL,
    alias TEXT NOT NULL,
    PRIMARY KEY (project, collection, alias)  -- an alias points to one version
) STRICT, WITHOUT ROWID;
CREATE INDEX aliases_of_artifact ON artifact_aliases (artifact);

CREATE TABLE artifact_uses (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    PRIMARY KEY (run, artifact)
) STRICT, WITHOUT ROWID;
CREATE INDEX uses_of_artifact ON artifact_uses (artifact);
