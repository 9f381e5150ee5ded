"""Private parts of the wandb client; no other file uses any.

A new release may rename any of it, so setup.cfg accepts only releases that the tests drive against a real server.
amc_agents uses this file, too: it may import amc_analysis, and amc_analysis may not import it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any


class ClientVersionError(RuntimeError):
    """The installed wandb client lacks something that is needed here."""

    def __init__(self, name: str) -> None:
        import wandb

        super().__init__(f"wandb {wandb.__version__} has no {name}: install a release that setup.cfg accepts")


def send_query(api: Any, document: str, **variables: Any) -> dict[str, Any]:
    """Return the ``data`` of a GraphQL answer; nothing of it is cached.

    Args:
        api: a ``wandb.Api``.
        document: the query or mutation.
        variables: those of the document.

    Raises:
        ClientVersionError: the client cannot send a document.
        wandb.Error: the server refused it, or does not answer.
    """
    execute = _executor(api)
    try:
        return dict(execute(document, variables))
    except Exception as error:
        from wandb.errors import CommError

        raise CommError(str(error) or type(error).__name__, error) from error


def _executor(api: Any) -> Any:
    """Return the client's function that takes a document and variables."""
    execute = getattr(getattr(api, "_service_api", None), "execute_graphql", None)
    if execute is not None:
        return execute
    try:
        from wandb_gql import gql  # wandb before 0.28 has it; wandb itself makes it importable
    except ImportError as error:
        raise ClientVersionError("Api._service_api.execute_graphql") from error
    return lambda document, variables: api.client.execute(gql(document), variable_values=variables)


def watch_requests(api: Any, around: Callable[[], AbstractContextManager[None]]) -> None:
    """Enter a context manager around every request of a ``wandb.Api``, and make every failure a ``wandb.Error``.

    The client raises its WandbApiFailedError in many places, which is not one. What is raised here is both, because the
    client itself catches the one, and our commands the other.
    """
    service = getattr(api, "_service_api", None)
    if service is None:
        return  # wandb before 0.28: its requests raise wandb.Error
    from wandb.errors import CommError
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    class RequestFailedError(CommError, WandbApiFailedError):  # type: ignore[misc, unused-ignore]
        def __init__(self, error: WandbApiFailedError) -> None:
            CommError.__init__(self, str(error), error)
            self.response = error.response

    send, itself = type(service).send_api_request, weakref.ref(service)  # a cycle would keep it beyond its last user

    def watched(request: Any, timeout: float | None = None) -> Any:
        with around():
            try:
                return send(itself(), request, timeout=timeout)
            except WandbApiFailedError as error:
                raise RequestFailedError(error) from error

    service.send_api_request = watched


def has_no_answer(error: Exception) -> bool:
    """Return whether an error of the client means that no answer came within the timeout of its ``Api``."""
    return "did not respond in time" in str(error)


def attributes(item: Any) -> Mapping[str, Any]:
    """Return every field that the server sent of a run or a sweep, under W&B's name; empty where the client has none.

    Its public properties leave out ``displayName``, ``updatedAt`` and ``historyLineCount``.
    """
    return getattr(item, "_attrs", {})


def scan_history(run: Any, *, fresh: bool) -> Any:
    """Return an iterator over all rows of a run; ``fresh`` leaves out the client's own cache, where it has one."""
    if fresh:
        try:
            return run.scan_history(use_cache=False)
        except TypeError:
            pass  # older clients have no cache
    return run.scan_history()


def page_address(base_url: str) -> str:
    """Return the address of a server's pages; the cloud's pages are on another host than its API.

    Raises:
        ClientVersionError: the client cannot tell.
    """
    import wandb

    try:
        return str(wandb.Settings(base_url=base_url).app_url)
    except AttributeError as error:
        raise ClientVersionError("Settings.app_url") from error


def agent_command(sweep_command: Any, command: Mapping[str, Any], parameter_file: Path) -> list[str]:
    """Return the command line that ``wandb agent`` would start for a run, and write its parameter file.

    Args:
        sweep_command: the sweep's ``command``; None: W&B's default.
        command: the server's: ``run_id``, ``program`` and ``args``.
        parameter_file: where the client of the trial reads the run's parameters (WANDB_SWEEP_PARAM_PATH).

    Raises:
        ClientVersionError: the client cannot tell.
        OSError: the file cannot be written.
    """
    try:
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
        from wandb.sdk.lib.config_util import save_config_file_from_dict
    except ImportError as error:
        raise ClientVersionError("sdk.launch.sweeps.utils.create_sweep_command_args") from error
    items: list[str] = [str(item) for item in create_sweep_command(sweep_command)]
    values: dict[str, list[str]] = create_sweep_command_args(dict(command))
    parameter_file.parent.mkdir(parents=True, exist_ok=True)
    save_config_file_from_dict(str(parameter_file), command["args"])
    json_file = parameter_file.with_suffix(".json")
    if "${args_json_file}" in items:
        json_file.write_text(values["args_json"][0])
    values |= {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [str(command["program"])],
        "args_json_file": [str(json_file)],
    }
    line: list[str] = []
    for item in items:
        line += values.get(item[2:-1], []) if item.startswith("${") and item.endswith("}") else [item]
    return line
