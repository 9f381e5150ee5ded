"""What real error messages say about the end of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amc_sweeps.runs.causes import EXIT_CODES, Cause, EndReason, Evidence, classify
from amc_sweeps.runs.log_messages import cause_in_log

FRAMES = 'Traceback (most recent call last):\n  File "/home/me/train.py", line 9, in <module>\n    main()\n'

MESSAGES = {
    Cause.OUT_OF_MEMORY: [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0)",
        "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "RuntimeError: CUDA driver error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 512.00 MiB",
        "RuntimeError: MPS backend out of memory (MPS allocated: 17.97 GB, other allocations: 0 bytes)",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 GiB",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 19.5 GiB for an array with shape (255590, 1024)",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 34359738368 bytes. Error code 12 (Cannot allocate memory)",
        "OSError: [Errno 12] Cannot allocate memory",
        "terminate called after throwing an instance of 'std::bad_alloc'\nAborted (core dumped)",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=4711.batch.",
        "slurmstepd: error: Exceeded job memory limit at some point.",
        "kernel: Memory cgroup out of memory: Killed process 4711 (python) total-vm:52428800kB",
    ],
    Cause.DIVERGED: [
        "RuntimeError: Function 'LogSoftmaxBackward0' returned nan values in its 0th output.",
        "ValueError: Expected parameter loc (Tensor of shape (64,)) of distribution Normal to satisfy the constraint "
        "Real(), but found invalid values:\ntensor([nan, nan], device='cuda:0')",
        "ValueError: loss is nan, stopping training",
    ],
    Cause.ENVIRONMENT_ERROR: [
        "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
        "OSError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /opt/torch/_C.so)",
        "ImportError: cannot import name 'create_model' from 'timm' ",
        "ModuleNotFoundError: No module named 'h5py'",
        "bash: line 1: amc-train: command not found",
        "/usr/bin/env: 'python3.11': No such file or directory",
        "python: can't open file '/home/me/train.py': [Errno 2] No such file or directory",
        "FileNotFoundError: [Errno 2] No such file or directory: 'amc-train'",
        "RuntimeError: Found no NVIDIA driver on your system.",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
        "RuntimeError: No CUDA GPUs are available",
        "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
        "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "Failed to initialize NVML: Driver/library version mismatch",
        "AssertionError: Torch not compiled with CUDA enabled",
        "torch.distributed.DistBackendError: NCCL error in: unhandled system error\n"
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
        "[rank0]: torch.distributed.DistBackendError: NCCL error\n[rank0]: ncclRemoteError: A call failed",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=42, OpType=ALLREDUCE)",
        "RuntimeError: The server socket has failed to listen on any local network address. port: 29500, EADDRINUSE",
        "OSError: [Errno 28] No space left on device: '/scratch/runs/last.pt'",
        "OSError: [Errno 122] Disk quota exceeded",
        "RuntimeError: [enforce fail at inline_container.cc:603]  PytorchStreamWriter failed writing file: file "
        "write failed",
        "OSError: [Errno 30] Read-only file system: 'runs'",
        "OSError: [Errno 116] Stale file handle: '/nfs/data/RML2018.hdf5'",
        "OSError: [Errno 5] Input/output error",
        "PermissionError: [Errno 13] Permission denied: '/scratch/runs/a1b2c3d4'",
        "PermissionError: [Errno 13] Unable to synchronously open file (unable to open file: name = '/data/RML.hdf5', "
        "errno = 13, error message = 'Permission denied')",
        "BlockingIOError: [Errno 11] Unable to synchronously open file (unable to lock file, errno = 11, "
        "'Resource temporarily unavailable')",
        "OSError: [Errno 24] Too many open files: '/dev/shm/torch_4711'",
        "RuntimeError: DataLoader worker (pid 23) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        "wandb.errors.errors.CommError: Run initialization has timed out after 90.0 sec.",
        "wandb.errors.errors.AuthenticationError: The API key you provided is either invalid or missing.",
        "wandb.errors.UsageError: api_key not configured (no-tty). call wandb.login(key=[your_api_key])",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='hf.co', port=443): Max retries exceeded",
        "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
        "ConnectionRefusedError: [Errno 111] Connection refused",
    ],
    Cause.DATA_ERROR: [
        "FileNotFoundError: [Errno 2] Unable to synchronously open file (unable to open file: name = '/data/RML.hdf5', "
        "errno = 2, error message = 'No such file or directory')",
        "FileNotFoundError: [Errno 2] No such file or directory: '/scratch/RML2018.hdf5'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/classes.txt'",
        "FileNotFoundError: '/mnt/train.npz'",
        "OSError: Unable to synchronously open file (truncated file: eof = 96, stored_eof = 2048)",
        "OSError: Unable to synchronously open file (file signature not found)",
        "KeyError: \"Unable to synchronously open object (object 'X' doesn't exist)\"",
        "OSError: Can't synchronously read data (inflate() failed)",
        "zipfile.BadZipFile: File is not a zip file",
        "_pickle.UnpicklingError: pickle data was truncated",
        "pandas.errors.EmptyDataError: No columns to parse from file",
        "RuntimeError: Dataset not found or corrupted. You can use download=True to download it",
        "amc_core.data.radioml.DataError: RML2018.hdf5 has no dataset Z",
    ],
    Cause.CONFIG_REFUSED: [
        "train.py: error: argument --lr: invalid float value: 'high'",
        "train.py: error: unrecognized arguments: --optimizer=sgd",
        "amc_core.config.ConfigError: epochs 0: at least 1",
    ],
    Cause.KILLED_BY_SIGNAL: [
        "/var/spool/slurmd/job04711/slurm_script: line 8: 23711 Killed                  python train.py",
        "Fatal Python error: Segmentation fault",
        "train.sh: line 3:  4711 Bus error               (core dumped) python train.py",
    ],
    Cause.PREEMPTED: [
        "slurmstepd: error: *** JOB 4711 ON gpu-3 CANCELLED AT 2025-07-01T12:00:00 DUE TO PREEMPTION ***",
        "slurmstepd: error: *** JOB 4711 ON gpu-3 CANCELLED AT 2025-07-01T12:00:00 DUE TO TIME LIMIT ***",
    ],
    Cause.NODE_FAILURE: ["slurmstepd: error: *** JOB 4711 ON gpu-3 CANCELLED AT 2025-07-01 DUE TO NODE FAILURE ***"],
    Cause.ERROR: [
        "FileNotFoundError: [Errno 2] No such file or directory: '/runs/a1b2c3d4/last.pt'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'configs/model.yaml'",
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.distributed.DistBackendError: NCCL error in: invalid usage\nncclInvalidUsage: "
        "This usually reflects invalid usage of NCCL library.\nDuplicate GPU detected",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x512 and 256x24)",
        "wandb.errors.errors.UsageError: Invalid sweep config",
        "yaml.parser.ParserError: while parsing a block mapping",
        "KeyError: 'lr'",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "cause"),
    [(message, cause) for cause, messages in MESSAGES.items() for message in messages],
    ids=lambda value: str(value)[:40],
)
def test_a_message_shows_its_cause_alone_and_after_a_traceback(message: str, cause: Cause) -> None:
    for log in (message, f"epoch 3\n{FRAMES}{message}\n"):
        diagnosis = classify(Evidence("failed", exit_code=1, log_tail=log))
        assert diagnosis.cause is cause, diagnosis


def test_code_in_a_traceback_is_no_message() -> None:
    code = '    raise FileNotFoundError("x.h5: No such file or directory")  # CUDA out of memory, loss is nan, Killed\n'
    log = f"{FRAMES}{code}KeyError: 'lr'"
    assert cause_in_log(log) == ("error", "KeyError: 'lr'")
    ranked = "\n".join(f"[rank0]: {line}" for line in log.splitlines())
    assert cause_in_log(ranked) == ("error", "KeyError: 'lr'")


def test_a_network_warning_before_a_kill_is_not_the_cause() -> None:
    log = "wandb: Network error (ConnectionError), entering retry loop: Connection refused.\nline 3: 47 Killed  python"
    assert classify(Evidence("crashed", log_tail=log)).cause is Cause.KILLED_BY_SIGNAL


@pytest.mark.parametrize(
    "evidence",
    [Evidence("failed", end_reason=EndReason.ERROR), Evidence("failed", exit_code=EXIT_CODES[EndReason.ERROR])],
)
def test_the_log_says_what_a_trial_only_calls_an_error(evidence: Evidence) -> None:
    assert classify(evidence).cause is Cause.ERROR
    full = replace(evidence, log_tail=f"{FRAMES}OSError: [Errno 28] No space left on device")
    assert classify(full).cause is Cause.ENVIRONMENT_ERROR
    bug = replace(evidence, log_tail=f"{FRAMES}KeyError: 'lr'")
    assert classify(bug).cause is Cause.ERROR
