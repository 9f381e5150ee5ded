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
