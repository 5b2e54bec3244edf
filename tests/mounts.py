"""Real small disks for tests: a program that sees a tmpfs of a given size at a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path


def on_tmpfs(folder: Path | str, size: str, *, is_read_only: bool = False) -> tuple[str, ...]:
    """Return the beginning of a command that runs the rest with a tmpfs mounted at `folder`.

    The mount is in a namespace of its own and ends with the program.  Root does it at once, others in
    a user namespace; a machine that allows neither fails the test.
    """
    after = f'&& mount -o remount,ro "{folder}"' if is_read_only else ""
    inside = f'mount -t tmpfs -o size={size} tmpfs "{folder}" {after} && exec "$@"'
    failures = []
    for unshare in (("unshare", "-m"), ("unshare", "-rm")):
        command = (*unshare, "sh", "-c", inside, "sh")
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return command
        failures.append(done.stderr.strip())
    raise AssertionError(f"no tmpfs can be mounted: {'; '.join(failures)}")
