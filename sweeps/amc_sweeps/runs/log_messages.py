"""What the last lines of a console say about the end of a run.

After a traceback only its message counts, and what follows it: the lines of code above it hold words of any kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TRACEBACK = "Traceback (most recent call last):"
_FRAMES = re.compile(rf"^{re.escape(_TRACEBACK)}\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
_RANK = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)  # torchrun's mark of every line
_DATA_NAME = (
    r"(?:\.(?:h5|hdf5?|mat|np[yz]|csv|tsv|parquet|feather|arrow|pkl|pickle|dat|bin|iq|sigmf(?:-\w+)?|zip|tar"
    r"|t?gz|[lm]db|tfrecords?|jpe?g|png|wav)\b|\b(?:data|datasets?)/)"
)
_PROGRAM_NAME = r"['\"]?[\w+-]+['\"]?$"  # no folder and no suffix

# A cause of ``causes.Cause`` and the messages that show it. The first cause with a match is taken.
_MESSAGES: Mapping[str, tuple[str, ...]] = {
    "out_of_memory": (
        r"(?:CUDA|HIP|XPU|MPS backend)(?: driver)?(?: error:)? out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY",
        r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED|ResourceExhaustedError",
        r"\b_?(?:Array)?MemoryError\b|std::bad_alloc|[Cc]an(?:'t|not) allocate memory",
        r"Unable to allocate [\d.]+ [KMGT]i?B",
        r"[Oo]ut of memory: Killed|[Oo][Oo][Mm][-_ ][Kk]ill|out-of-memory handler|[Ee]xceeded \w+ memory limit",
    ),
    "diverged": (
        r"\bDiverged\b|(?i:loss\b[^\n]{0,30}\bnan\b)",
        r"(?i:(?:loss|gradients?|weights?)\b[^\n]{0,30}\b(?:not|non-?)\s?finite)",
        r"(?i:\b(?:nan|non-?finite|infinite)\b[^\n]{0,30}\b(?:loss|gradients?|weights?)\b)|(?i:input contains nan)",
        r"returned nan values|found invalid values:\s*tensor\(\[*nan",
    ),
    "node_failure": (r"DUE TO NODE FAILURE",),
    "preempted": (r"DUE TO (?:PREEMPTION|TIME LIMIT)",),
    "environment_error": (
        # libraries, programs
        r"^(?:[\w.]+\.)?(?:ImportError|ModuleNotFoundError)\b|cannot open shared object file|command not found",
        rf"No such file or directory: {_PROGRAM_NAME}|can't open file .*\[Errno 2\]|env: .*No such file or directory",
        # the GPU and its driver
        r"no NVIDIA driver|NVIDIA driver on your system is too old|No CUDA GPUs are available|CUDA unknown error",
        r"[Nn]o kernel image is available|CUDA driver (?:version is insufficient|initialization failed)",
        r"not compiled with CUDA enabled|busy or unavailable|invalid device ordinal|uncorrectable ECC error",
        r"[Dd]river/library version mismatch|fallen off the bus|CU(?:DNN|BLAS)_STATUS_NOT_INITIALIZED",
        r"libcuda\.so|system not yet initialized",
        # other processes of the same training
        r"nccl(?:System|Internal|Remote|UnhandledCuda)Error|[Cc]ollective operation timeout",
        r"DistNetworkError|EADDRINUSE|Address already in use",
        # disks and limits
        r"No space left on device|[Dd]isk quota exceeded|Read-only file system|Input/output error|Stale file handle",
        r"PytorchStreamWriter failed writing|[Pp]ermission denied|PermissionError|Operation not permitted",
        r"unable to lock file|Too many open files|received \d+ items of ancdata|can't start new thread",
        r"(?:out of|insufficient) shared memory",
        # networks and logins
        r"^(?:[\w.]+\.)?(?:CommError|AuthenticationError|ServiceStart\w*Error|WandbService\w*Error)\b",
        r"api_key not configured",
        r"^[\w.]*(?:Error|Exception|Timeout)\b.*(?:Max retries exceeded|[Nn]ame resolution|Name or service not known)",
        r"^[\w.]*(?:Error|Exception)\b.*(?:Connection (?:refused|reset)|Network is unreachable|couldn't connect to)",
    ),
    "data_error": (
        r"\bDataError\b|[Uu]nable to (?:synchronously )?(?:open (?:file|object)|read)",
        r"[Cc]an't (?:synchronously )?read data",
        r"truncated file|file signature not found|BadZipFile|pickle data was truncated|Dataset not found or corrupted",
        r"pandas\.errors\.(?:EmptyData|Parser)Error",
        rf"(?:FileNotFoundError|No such file or directory).*{_DATA_NAME}",
    ),
    "config_refused": (r"\bConfigError\b|unrecognized arguments|error: argument |No such option|Invalid value for",),
    "killed_by_signal": (r"\bKilled\b|(?:^|\d\s+)Terminated\b|Segmentation fault|\b[Bb]us error\b|core dumped",),
    "error": (r"^[\w.]*(?:Error|Exception)\b.*|^Traceback \(most recent call last\)",),
}
_PATTERNS = {cause: re.compile("|".join(parts), re.MULTILINE) for cause, parts in _MESSAGES.items()}


def cause_in_log(text: str) -> tuple[str, str] | None:
    """Return the word of the cause that the end of a log shows, and the line that shows it; None without any."""
    text = _RANK.sub("", text)
    text = text[max(text.rfind(_TRACEBACK), 0) :]
    message = _FRAMES.sub("", text) or text
    for cause, pattern in _PATTERNS.items():
        matches = list(pattern.finditer(message))
        if matches:
            start = message.rfind("\n", 0, matches[-1].start()) + 1
            return cause, message[start:].split("\n", 1)[0].strip()
    return None
