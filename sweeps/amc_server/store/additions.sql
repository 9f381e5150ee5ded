-- Tables and indexes that came after a version of schema.sql; data folders of that version get them when they are opened.

-- Of runs that several clients write (shared mode): which line of the run a writer's own line became.
CREATE TABLE IF NOT EXISTS shared_lines (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    stream TEXT NOT NULL,          -- the table: history, events, console
    writer TEXT NOT NULL,
    number INTEGER NOT NULL,       -- as the writer counts
    line INTEGER NOT NULL,
    PRIMARY KEY (run, stream, writer, number)
) STRICT, WITHOUT ROWID;

-- Runs of other sweeps and projects from which a sweep's search learns. (A run without a sweep joins it instead.)
CREATE TABLE IF NOT EXISTS prior_runs (
    sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE,
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    parameters TEXT NOT NULL,      -- JSON object, as the sweep would have chosen them
    low REAL,                      -- of the sweep's metric; NULL without any finite value
    high REAL,
    last REAL,
    PRIMARY KEY (sweep, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sweeps_of_prior_run ON prior_runs (run);

-- The configs that a sweep had before its config was changed.
CREATE TABLE IF NOT EXISTS sweep_updates (
    pk INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE,
    at REAL NOT NULL,
    author TEXT,                   -- NULL: the client did not say
    config TEXT NOT NULL           -- YAML, before this change
) STRICT;
CREATE INDEX IF NOT EXISTS updates_of_sweep ON sweep_updates (sweep);

-- Of artifacts: further runs that logged the same content, and the client ids by which requests name a version.
CREATE TABLE IF NOT EXISTS artifact_outputs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    PRIMARY KEY (run, artifact)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifact_client_ids (
    client_id TEXT PRIMARY KEY,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifact_tags (
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (artifact, tag)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS collection_tags (
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    collection TEXT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (project, collection, tag)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS collection_descriptions (
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    collection TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (project, collection)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifact_references (
    file INTEGER PRIMARY KEY REFERENCES artifact_files ON DELETE CASCADE,
    url TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS artifact_files_by_md5 ON artifact_files (md5);

-- For an agent's heartbeat, which must not look at the runs of a thousand other agents.
CREATE INDEX IF NOT EXISTS runs_of_agent ON runs (agent, state);
