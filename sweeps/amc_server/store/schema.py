"""The SQL schema of a data folder: made in an empty database, and checked in one that exists."""

from __future__ import annotations

import sqlite3
from importlib.resources import files

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
VERSION = 4  # of schema.sql; a database carries it as PRAGMA user_version
# Columns that came after that version, as (table, name, definition). Every database gets them when it is opened.
ADDED_COLUMNS = (
    ("sweeps", "shuffle", "INTEGER NOT NULL DEFAULT 0"),  # a grid's order is shuffled by the seed
    ("runs", "leased_until", "REAL"),  # Unix time: until then a run that was handed out waits for its trial
    ("sweeps", "crashed_runs", "TEXT"),  # --crashed-runs; NULL: the config decides, see crashed_runs.policy_of
)


class SchemaError(RuntimeError):
    """This version cannot use the database; the message says what to do."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, or check that a database has this version's tables.

    Raises:
        SchemaError: another version wrote the database, or SQLite itself is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise SchemaError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed (a newer Python has it)"
        )
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        script = _script("schema.sql")
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {VERSION}; COMMIT;")
    check_version(connection)
    for table, name, definition in ADDED_COLUMNS:
        if name not in [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {definition}")
    connection.executescript(f"BEGIN IMMEDIATE; {_script('additions.sql')} COMMIT;")


def _script(name: str) -> str:
    return files("amc_server.store").joinpath(name).read_text()


def check_version(connection: sqlite3.Connection) -> None:
    """Refuse a database with another version's tables.

    Raises:
        SchemaError: the message says what to do.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise SchemaError(
            f"the database has schema {version}, this version knows {VERSION}: it was written by a newer "
            "amc-sweep. Install that one (pip install -U amc-sweep-toolkit), or choose another --data folder."
        )
    if version < VERSION:
        raise SchemaError(
            f"the database has schema {version}, this version knows {VERSION}: it was written by an older "
            "amc-sweep. Export the sweeps with that version (amc-sweep export), then import them into a new "
            "--data folder (amc-sweep import)."
        )
