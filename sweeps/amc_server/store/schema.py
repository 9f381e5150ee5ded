"""The SQL schema of a data folder, as the list of steps that lead to it.

A database carries the number of steps that were applied to it (``PRAGMA user_version``). Steps are only ever added at
the end, never changed: an older database takes the missing ones, a newer one is refused.
"""

from __future__ import annotations

import sqlite3

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


class SchemaError(RuntimeError):
    """The database cannot be used by this version; the message says what to do."""


MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;

    CREATE TABLE projects (
        pk INTEGER PRIMARY KEY,
        entity TEXT NOT NULL,
        name TEXT NOT NULL,
        description TEXT,
        created_at REAL NOT NULL,      -- Unix time, seconds, as all times here
        UNIQUE (entity, name)
    ) STRICT;

    CREATE TABLE sweeps (
        pk INTEGER PRIMARY KEY,
        project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
        id TEXT NOT NULL UNIQUE,       -- unique on the whole server, so that a bare id says which sweep is meant
        state TEXT NOT NULL,           -- SweepState
        config TEXT NOT NULL,          -- YAML as it was given
        seed INTEGER NOT NULL,         -- of the search
        search_end TEXT,               -- why the search has nothing more to propose: exhausted, run_cap, target
        display_name TEXT,
        description TEXT,
        controller TEXT,
        scheduler TEXT,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        heartbeat_at REAL
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
        origin TEXT NOT NULL,          -- trial (began by itself), search, queue (put there by a person), prior
        number INTEGER,                -- of the runs that the sweep began: 0, 1, 2, ...
        parameters TEXT,               -- JSON object: what the sweep chose
        -- The facts that its state follows from (states.py), and the state itself as it was last concluded.
        state TEXT NOT NULL,           -- RunState
        agent INTEGER REFERENCES agents ON DELETE SET NULL,  -- to which it was last handed out
        hand_outs INTEGER NOT NULL DEFAULT 0,
        started INTEGER NOT NULL DEFAULT 0,     -- its trial reported since it was last handed out
        exit_code INTEGER,             -- from the trial's goodbye
        preempting INTEGER NOT NULL DEFAULT 0,
        given_up INTEGER NOT NULL DEFAULT 0,    -- handed out too often without a word from a trial
        stop_reason TEXT,              -- hyperband, user, cancelled
        stop_at REAL,
        stop_band INTEGER,
        stop_value REAL,
        stop_threshold REAL,
        -- What the trial says of itself.
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
        UNIQUE (project, id)
    ) STRICT;
    CREATE INDEX runs_of_sweep ON runs (sweep);
    CREATE INDEX living_runs ON runs (state) WHERE state IN ('pending', 'running', 'preempting');

    -- A trial numbers its lines and may send them twice: (run, line) makes the second time an overwrite.
    CREATE TABLE history (
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        line INTEGER NOT NULL,
        step INTEGER,
        body TEXT NOT NULL,            -- the JSON text as it was sent; W&B's JSON has NaN and Infinity
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

    -- The finite values of the sweep's metric, drawn from history: search and early stopping read these alone.
    CREATE TABLE points (
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        line INTEGER NOT NULL,         -- of history
        value REAL NOT NULL,
        PRIMARY KEY (run, line)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE files (
        pk INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        name TEXT NOT NULL,
        blob TEXT NOT NULL,            -- where its bytes are, below the data folder's blobs/
        size INTEGER NOT NULL,
        md5 TEXT NOT NULL,             -- base64, as W&B gives it
        updated_at REAL NOT NULL,
        UNIQUE (run, name)
    ) STRICT;
    """,
    # Artifacts: versions of a named collection of files, such as a model's checkpoints.
    """
    CREATE TABLE artifacts (
        pk INTEGER PRIMARY KEY,
        project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
        run INTEGER REFERENCES runs ON DELETE SET NULL,  -- that logged it
        type TEXT NOT NULL,
        collection TEXT NOT NULL,
        version INTEGER,               -- 0, 1, 2, ... within the collection, from the commit on
        state TEXT NOT NULL,           -- PENDING while its files arrive, then COMMITTED
        digest TEXT NOT NULL,          -- of the contents, by the client
        client_id TEXT,                -- the client's own name for it: a request that comes again means the same one
        description TEXT,
        metadata TEXT,                 -- JSON
        history_step INTEGER,
        size INTEGER NOT NULL DEFAULT 0,
        manifest TEXT,                 -- the blob with the list of its files
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        UNIQUE (project, collection, version)
    ) STRICT;
    CREATE INDEX artifacts_of_run ON artifacts (run);

    CREATE TABLE artifact_files (
        pk INTEGER PRIMARY KEY,
        artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
        name TEXT NOT NULL,
        md5 TEXT NOT NULL,             -- as announced; bytes of another are refused
        blob TEXT,                     -- NULL until the bytes are here
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
    """,
    # What an agent's heartbeat asks of a sweep, without looking at every run it ever had.
    """
    CREATE INDEX runs_of_sweep_by_state ON runs (sweep, state, origin);
    """,
    # What an import cannot say otherwise: a run that had not ended, and facts that nobody knows.
    """
    ALTER TABLE runs ADD COLUMN state_when_exported TEXT;  -- of a run that was alive then; NULL for every other
    ALTER TABLE runs ADD COLUMN unknown TEXT NOT NULL DEFAULT '[]';    -- JSON: the fields that the export lacked
    ALTER TABLE sweeps ADD COLUMN unknown TEXT NOT NULL DEFAULT '[]';
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to this version's schema, step by step, each step wholly or not at all.

    Raises:
        SchemaError: when the database was written by a newer version, or SQLite itself is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise SchemaError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed (a newer Python has it)"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise SchemaError(
            f"the database has schema {version}, this version knows {len(MIGRATIONS)}: it was written by a newer "
            "amc-sweep. Install that one (pip install -U amc-sweep-toolkit), or choose another --data folder."
        )
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
