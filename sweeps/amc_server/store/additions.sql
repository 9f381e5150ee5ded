-- Tables that came after a version of schema.sql; data folders of that version get them when they are opened.

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
