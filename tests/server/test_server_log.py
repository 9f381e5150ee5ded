"""The server's log: one line of JSON for every request, free of what a client may put into it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from in_process_server import InProcessServer

from amc_server.server_log import RequestLog, log_to


def test_no_control_character_of_a_client_reaches_the_log(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "data")
    server.app = RequestLog(server.app, logging.getLogger("amc_server.requests"))  # type: ignore[assignment]
    hostile = "\x1b[2J\x7f\x9b\r\n\u202e\x00"
    with log_to(tmp_path / "server.log"):
        server.request("GET", f"/local/{hostile}")
        query = {"query": f"query Q {{ {hostile} }}", "operationName": hostile}
        server.request("POST", "/graphql", json.dumps(query).encode(), {"user-agent": f"wandb/9.9.9 {hostile!r}"})
        server.begin("r", {hostile: 1})
    text = (tmp_path / "server.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("\x1b[2J" in line.get("path", "") for line in lines), "a reader of the JSON gets what was sent"
    assert all(letter == "\n" or " " <= letter <= "~" for letter in text)
    server.close()
