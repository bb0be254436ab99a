"""A dataset that is published as a git repository, cloned once and kept in the cache."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, without_secrets

log = logging.getLogger(__name__)
COUNTED = re.compile(r"Receiving objects: +\d+% \((\d+)/(\d+)\)")
QUIET = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # nobody sits there to type a password; words as they are parsed


def is_url(text: str) -> bool:
    """Whether a text names a repository elsewhere, and no folder."""
    return "://" in text or bool(re.match(r"[\w.-]+@[\w.-]+:", text))


def clone(url: str, into: Path, name: str, licence: str, progress: Callable[[int, int], None]) -> Path:
    """Return the folder below `into` that holds a repository as it was when it was first cloned.

    name, licence: of the data, told to who fetches them; progress: called with (objects received, objects in all)

    Raises:
        ConfigError: git is not installed, or cannot fetch it; nothing is left of it.
    """
    target = into / f"{name}-{files.fingerprint(url)}"
    if target.is_dir():
        return target
    log.info("cloning %s from %s, licence %s", name, without_secrets(url), licence)
    partial = target.with_name(f"{target.name}.{os.getpid()}.clone")
    try:
        _run(url, partial, progress)
        os.replace(partial, target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _run(url: str, target: Path, progress: Callable[[int, int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["git", "clone", "--progress", "--depth", "1", "--", url, str(target)]
    try:
        git = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | QUIET)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{without_secrets(url)}: git is not installed; install it, or give --data a folder"
        ) from error
    with git:
        assert git.stderr is not None, "it is piped"
        said = list(_said(git.stderr, progress))
    if git.returncode:
        cause = "; ".join(said[-2:]) or f"git ended with {git.returncode}"
        told = without_secrets(f"{url}: cannot be cloned ({cause})")
        raise ConfigError(f"{told}; check address and network, or give --data a folder")


def _said(lines: IO[str], progress: Callable[[int, int], None]) -> Iterator[str]:
    """Tell git's progress, and yield what it says of errors."""
    for line in lines:  # Python takes a carriage return for the end of a line, too
        if counted := COUNTED.search(line):
            progress(int(counted[1]), int(counted[2]))
        elif line.startswith(("fatal:", "error:", "ssh:")):
            yield line.strip()
