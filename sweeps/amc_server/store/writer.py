"""Every SQL statement that writes.

``storage.Storage.write`` gives out the one ``Writer`` for a transaction. The learning curves that it keeps in memory
stay equal to the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amc_server.errors import Refused
from amc_server.ids import is_plain_name
from amc_server.json_texts import without_surrogates
from amc_server.store.curves import CurveCache
from amc_server.store.incoming import storable, storable_json
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY, LATEST, Artifact, Line, Project
from amc_sweeps.number_formats import quoted
from amc_sweeps.values import printable


class Writer(Reader):
    """Queries and changes within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._cache = CurveCache()
        self.changed_runs: set[int] = set()  # of this transaction
        self.generation = 0  # a copy of runs that was made in an earlier generation is no longer valid

    def invalidate_copies(self) -> None:
        """Drop the curves in memory, and begin a generation: an undone transaction or a deletion took rows away."""
        self._cache.clear()
        self.generation += 1

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]]:
        """Return by key, for every run of the sweep that has any, its logged finite values of the sweep's metric."""
        curves = self._cache.curves(sweep)
        if curves is None:
            self._cache.keep(sweep, self.points(sweep))
            curves = self._cache.curves(sweep) or {}
        return curves

    def insert(self, table: str, **values: Any) -> int:
        """Add a row and return its key, which no row of the table has had before."""
        values = storable(table, values)
        deleted = self.meta(f"deleted {table}")
        if deleted is not None and deleted.isdecimal() and len(deleted) < 19:
            values["pk"] = 1 + max(int(deleted), self._value(f"SELECT max(pk) FROM {table}") or 0)
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
        key = int(cursor.lastrowid or 0)
        if table == "runs":
            self.changed_runs.add(key)
        return key

    def update(self, table: str, pk: int, **values: Any) -> None:
        if values:
            values = storable(table, values)
            changes = ", ".join(f"{name} = ?" for name in values)
            self._connection.execute(f"UPDATE {table} SET {changes} WHERE pk = ?", (*values.values(), pk))
            if table == "runs":
                self.changed_runs.add(pk)

    def delete(self, table: str, pk: int) -> None:
        """Remove the row with that key and everything that belongs to it.

        SQLite would give the highest key again. A client that repeats a deletion would then delete another row.
        """
        if table == "runs":
            self.invalidate_copies()
        if pk == self._value(f"SELECT max(pk) FROM {table}"):
            self.set_meta(f"deleted {table}", str(pk))
        self._connection.execute(f"DELETE FROM {table} WHERE pk = ?", (pk,))

    def put_history(self, run: int, lines: Iterable[Line]) -> None:
        """Write history rows; a row number that exists is overwritten."""
        self._connection.executemany(
            "INSERT INTO history (run, line, step, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (run, line) DO UPDATE SET step = excluded.step, body = excluded.body",
            [(run, line.number, line.step, storable_json(line.body)) for line in lines],
        )

    def copy_history(self, source: int, target: int, *, last_step: int) -> int:
        """Give a run without history the rows of another up to a step, and return how many they are."""
        cursor = self._connection.execute(
            "INSERT INTO history (run, line, step, body) SELECT ?, row_number() OVER (ORDER BY line) - 1, step, body"
            " FROM history WHERE run = ? AND step <= ?",
            (target, source, last_step),
        )
        return cursor.rowcount

    def put_lines(self, table: str, run: int, lines: Iterable[Line]) -> None:
        """Write lines of ``events`` or ``console``; a line number that exists is overwritten."""
        stored = storable_json if table == "events" else str
        self._connection.executemany(
            f"INSERT INTO {table} (run, line, body) VALUES (?, ?, ?)"
            " ON CONFLICT (run, line) DO UPDATE SET body = excluded.body",
            [(run, line.number, stored(line.body)) for line in lines],
        )

    def put_shared_lines(self, run: int, stream: str, writer: str, lines: Iterable[tuple[int, int]]) -> None:
        """Record which lines of the run a writer's lines became, as (the writer's number, the run's)."""
        self._connection.executemany(
            "INSERT INTO shared_lines (run, stream, writer, number, line) VALUES (?, ?, ?, ?, ?)",
            [(run, stream, writer, number, line) for number, line in lines],
        )

    def put_points(self, sweep: int, run: int, first: int, end: int, points: Sequence[tuple[int, float]]) -> None:
        """Replace the metric's values of the history rows ``first <= line < end`` by (line, value) pairs."""
        if not self._cache.append(sweep, run, first, points):
            self._cache.clear()
        self._connection.execute("DELETE FROM points WHERE run = ? AND line >= ? AND line < ?", (run, first, end))
        self._connection.executemany(
            "INSERT INTO points (run, line, value) VALUES (?, ?, ?)", [(run, line, value) for line, value in points]
        )

    def limit_points(self, run: int, low: float, high: float) -> None:
        """Bring every value of the run's metric into a range."""
        changed = self._connection.execute(
            "UPDATE points SET value = min(max(value, ?), ?) WHERE run = ? AND (value < ? OR value > ?)",
            (low, high, run, low, high),
        )
        if changed.rowcount:
            self._cache.clear()

    def project_or_new(self, name: str | None, now: float) -> Project:
        """Return the project of that name, creating it if there is none.

        Raises:
            Refused: the name cannot be a project's.
        """
        name = name or "uncategorized"
        project = self.project(ENTITY, name)
        if project is not None:
            return project
        if not is_plain_name(name):
            raise Refused(f"{quoted(name)} cannot be a project: 1 to 128 printable characters without a slash")
        return self.project_by_key(self.insert("projects", entity=ENTITY, name=name, created_at=now))

    def delete_artifact(self, artifact: Artifact) -> list[str]:
        """Remove an artifact and return the blobs that nothing names any more; ``latest`` goes to the newest left."""
        blobs = [artifact.manifest, *(file.blob for file in self.artifact_files(artifact.pk))]
        had_latest = self.artifact_with_alias(artifact.project, artifact.collection, LATEST) == artifact.pk
        self.delete("artifacts", artifact.pk)
        remaining = [other for other in self.artifacts(artifact.project, artifact.collection) if other.is_committed]
        if had_latest and remaining:
            self.put_alias(max(remaining, key=lambda other: other.version or 0), LATEST)
        return [blob for blob in blobs if blob is not None]

    def put_file(self, run: int, *, name: str, blob: str, size: int, md5: str, updated_at: float) -> None:
        """Record a file; one of the same name is replaced."""
        self._connection.execute(
            "INSERT INTO files (run, name, blob, size, md5, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (run, name) DO UPDATE SET blob = excluded.blob, size = excluded.size, md5 = excluded.md5,"
            " updated_at = excluded.updated_at",
            (run, name, blob, size, md5, updated_at),
        )

    def put_alias(self, artifact: Artifact, alias: str) -> None:
        """Let an alias name this version instead of any other of its collection."""
        self._connection.execute(
            "INSERT INTO artifact_aliases (artifact, project, collection, alias) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET artifact = excluded.artifact",
            (artifact.pk, artifact.project, artifact.collection, alias),
        )

    def remove_alias(self, artifact: Artifact, alias: str) -> None:
        self._connection.execute("DELETE FROM artifact_aliases WHERE artifact = ? AND alias = ?", (artifact.pk, alias))

    def put_use(self, run: int, artifact: int) -> None:
        self._connection.execute("INSERT OR IGNORE INTO artifact_uses (run, artifact) VALUES (?, ?)", (run, artifact))

    def put_prior_run(self, sweep: int, run: int, parameters: str, values: Sequence[float]) -> None:
        """Let a sweep's search learn from a run of another sweep; a second time replaces what was stored."""
        low, high, last = (min(values), max(values), values[-1]) if values else (None, None, None)
        self._connection.execute(
            "INSERT OR REPLACE INTO prior_runs (sweep, run, parameters, low, high, last) VALUES (?, ?, ?, ?, ?, ?)",
            (sweep, run, parameters, low, high, last),
        )

    def put_output(self, run: int, artifact: int) -> None:
        """Record that the run logged a version whose content was there already."""
        self._connection.execute(
            "INSERT OR IGNORE INTO artifact_outputs (run, artifact) VALUES (?, ?)", (run, artifact)
        )

    def put_reference(self, artifact: int, name: str, entry: Mapping[str, Any], now: float) -> None:
        """Record an entry of a manifest that points to a place elsewhere as a file without bytes."""
        size = entry.get("size")
        file = self.insert(
            "artifact_files",
            artifact=artifact,
            name=name,
            md5=without_surrogates(str(entry.get("digest"))),
            size=size if isinstance(size, int) and 0 <= size < 2**53 else 0,
            updated_at=now,
        )
        self.insert("artifact_references", file=file, url=without_surrogates(str(entry["ref"])))

    def put_client_id(self, client_id: str, artifact: int) -> None:
        sql = "INSERT OR REPLACE INTO artifact_client_ids (client_id, artifact) VALUES (?, ?)"
        self._connection.execute(sql, (client_id, artifact))

    def put_artifact_tag(self, artifact: int, tag: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO artifact_tags (artifact, tag) VALUES (?, ?)", (artifact, tag))

    def remove_artifact_tag(self, artifact: int, tag: str) -> None:
        self._connection.execute("DELETE FROM artifact_tags WHERE artifact = ? AND tag = ?", (artifact, tag))

    def put_collection_tag(self, project: int, collection: str, tag: str) -> None:
        sql = "INSERT OR IGNORE INTO collection_tags (project, collection, tag) VALUES (?, ?, ?)"
        self._connection.execute(sql, (project, collection, tag))

    def remove_collection_tag(self, project: int, collection: str, tag: str) -> None:
        sql = "DELETE FROM collection_tags WHERE project = ? AND collection = ? AND tag = ?"
        self._connection.execute(sql, (project, collection, tag))

    def put_collection_description(self, project: int, collection: str, description: str) -> None:
        sql = "INSERT OR REPLACE INTO collection_descriptions (project, collection, description) VALUES (?, ?, ?)"
        self._connection.execute(sql, (project, collection, printable(description)))

    def rename_collection(self, project: int, collection: str, name: str) -> None:
        for table in ("artifacts", "artifact_aliases", "collection_tags", "collection_descriptions"):
            sql = f"UPDATE {table} SET collection = ? WHERE project = ? AND collection = ?"
            self._connection.execute(sql, (name, project, collection))

    def delete_collection(self, project: int, collection: str) -> list[str]:
        """Remove all versions of a name and what is known of it; return the blobs that nothing names any more."""
        blobs = [blob for item in self.artifacts(project, collection) for blob in self.delete_artifact(item)]
        for table in ("collection_tags", "collection_descriptions"):
            self._connection.execute(f"DELETE FROM {table} WHERE project = ? AND collection = ?", (project, collection))
        return blobs

    def set_meta(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
