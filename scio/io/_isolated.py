"""Verifying in a child process with limits: what kills or hangs the child is a finding.

The parent gives the child its limits and a time, takes at most `_MAX_NBYTES` of it, and trusts
nothing of that but its form.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from scio import _core
from scio.io._report import LEVELS, Finding, Report

_MAX_NBYTES = 16 << 20
_LEAST_MEMORY = 1 << 30
_LEAST_SECONDS = 60.0
_NBYTES_PER_SECOND = 10e6
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_START = (
    "import json, sys; task = json.loads(sys.stdin.readline()); sys.path[:] = task['search']; "
    "from scio.io import _isolated; _isolated.serve(task)"
)


def verify_isolated(path: str, *, timeout: float | None, memory: int | None) -> Report:
    """Verify a file in a child.

    Parameters
    ----------
    path : str
    timeout : float or None
        Seconds of the clock.
    memory : int or None
        Bytes of address space.

    Returns
    -------
    Report
        The child's; or one that says how the child ended.
    """
    nbytes = os.stat(path).st_size
    if os.path.isdir(path):
        raise IsADirectoryError(21, "is a folder", path)
    with open(path, "rb"):  # the child's user is this one: no permission is told here
        pass
    if timeout is None:
        timeout = _LEAST_SECONDS + nbytes / _NBYTES_PER_SECOND
    if memory is None:
        memory = _default_memory()
    task = {
        "file": os.path.abspath(path),
        "search": [p or os.getcwd() for p in sys.path],
        "memory": memory,
        "seconds": int(timeout * _core.cpu_count()) + 1,
    }
    text, error, ending = _run(task, timeout)
    report = Report(path)
    if ending is None:
        try:
            return _taken(path, text)
        except (ValueError, TypeError, KeyError) as failure:
            ending = f"gave no report ({failure})"
    last = error.strip().splitlines()[-1:] or [""]
    found = f"the process that read it {ending}" + (f": {last[0]}" if last[0] else "")
    expected = f"an end within {timeout:g} s and {memory / 2**20:,.0f} MiB"
    report.add("/", "child", found, expected)
    return report


def _default_memory() -> int:
    from scio.io.read import _available_memory

    return max(_LEAST_MEMORY, (_available_memory() or 0) // 2)


# ---- the parent


def _run(task: dict[str, Any], timeout: float) -> tuple[bytes, str, str | None]:
    """Output, complaints, and how it ended unless well."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": ""}
    child = subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        close_fds=True,
        env=environment,
    )
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(json.dumps(task).encode() + b"\n")
        parts, is_whole = _collect(child, time.monotonic() + timeout)
        if is_whole:
            child.wait(5)
    except subprocess.TimeoutExpired:
        is_whole = False
    finally:
        was_running = child.poll() is None
        if was_running:
            child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    error = parts["stderr"].decode("utf-8", "replace")
    if not is_whole and len(parts["stdout"]) > _MAX_NBYTES:
        return b"", error, f"said more than {_MAX_NBYTES >> 20} MiB"
    if was_running:
        return b"", error, f"did not end within {timeout:g} s"
    return bytes(parts["stdout"]), error, _ending(child.returncode)


def _ending(code: int) -> str | None:
    if code == 0:
        return None
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def _collect(child: subprocess.Popen[bytes], deadline: float) -> tuple[dict[str, bytearray], bool]:
    """Read both pipes to their ends; False when time or size ran out."""
    parts = {"stdout": bytearray(), "stderr": bytearray()}
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, "stdout")
        selector.register(child.stderr, selectors.EVENT_READ, "stderr")
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return parts, False
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 1 << 16)
                parts[key.data] += chunk
                if not chunk:
                    selector.unregister(key.fileobj)
                elif len(parts[key.data]) > _MAX_NBYTES:
                    return parts, False
    return parts, True


def _taken(path: str, text: bytes) -> Report:
    """The child's report, each field looked at."""
    said = json.loads(text)
    report = Report(path, is_readable=bool(said["is_readable"]))
    for fields in said["findings"]:
        values = [fields[name] for name in ("path", "rule", "level", "found", "expected")]
        if not all(isinstance(v, str) for v in values) or values[2] not in LEVELS:
            message = "a finding of another form"
            raise ValueError(message)
        report.findings.append(Finding(*values))
    return report


# ---- the child


def serve(task: dict[str, Any]) -> None:
    """Verify `task["file"]` under the limits of `task`, and print the report as JSON."""
    from scio.io import verify  # libraries are loaded before files may no longer be read at will

    _limit(task["memory"], task["seconds"])
    try:
        report = verify.check_file(task["file"], is_deep=True)
    except MemoryError as error:
        report = Report(task["file"])
        expected = f"less than {task['memory'] / 2**20:,.0f} MiB"
        report.add("/", "memory", str(error) or "needs more memory", expected)
    said = {"is_readable": report.is_readable, "findings": [f.to_dict() for f in report.findings]}
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do for exit handlers


def _limit(memory: int, seconds: int) -> None:
    os.closerange(3, 4096)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # Linux; elsewhere the limits hold alone
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
