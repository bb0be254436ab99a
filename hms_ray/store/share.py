"""Where a store lies: in this machine's cache, and, where machines share no disk, at a URL that each copies it from."""

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

from hms_ray.core.errors import ConfigError, DataError, without_secrets
from hms_ray.store._writer import MANIFEST, is_whole

log = logging.getLogger(__name__)
VARIABLE = "HMS_RAY_STORE"


def cache_root() -> Path:
    """Return where prepared data lies: $HMS_RAY_CACHE, or hms_ray below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HMS_RAY_CACHE") or Path(base) / "hms_ray").absolute()


@contextmanager
def made_once(target: Path, resume: bool = False) -> Iterator[Path | None]:
    """Yield a folder that becomes `target` on leaving, or None where it is whole.

    The first process makes it; those that want it too wait.

    resume: the folder holds what an attempt that was killed has left there; else it is empty
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_whole(target):
            yield None
            return
        partial = target.with_name(f"{target.name}.copy")
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        yield partial
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


@dataclass(frozen=True)
class StoreRef:
    """A store by its name, as it travels to workers.

    made_in: the folder that holds it where it was made
    url: the folder, of any kind that fsspec knows, that holds a copy for other machines; None: they share a disk
    """

    name: str
    made_in: Path
    url: str | None

    @classmethod
    def of(cls, name: str) -> "StoreRef":
        """Return the store of that name, made or not, in this machine's cache."""
        url = os.environ.get(VARIABLE) or None
        if url and "://" not in url:
            url = str(Path(url).absolute())  # workers run elsewhere
        return cls(name, cache_root() / "prepared", url)

    @property
    def path(self) -> Path:
        """Its folder where it is made."""
        return self.made_in / self.name

    def is_here(self) -> bool:
        """Say whether it is whole here; one that others have made is copied first."""
        if not is_whole(self.path) and self._is_published():
            self._copy_to(self.path)
        return is_whole(self.path)

    @property
    def own(self) -> Path:
        """The folder of its copy in this machine's own cache."""
        return cache_root() / "prepared" / self.name

    def found(self) -> Path | None:
        """Return its folder on this machine, copied once a machine where it lies at a URL; None: it is at neither.

        Raises:
            ConfigError: the URL cannot be read.
        """
        if is_whole(self.path):
            return self.path
        if not is_whole(self.own) and self._is_published():
            self._copy_to(self.own)
        return self.own if is_whole(self.own) else None

    def local(self) -> Path:
        """Return its folder on this machine, as `found` does.

        Raises:
            DataError: it is neither here nor at the URL.
        """
        if (folder := self.found()) is None:
            raise DataError(
                f"{self.path}: no prepared data here; HMS_RAY_CACHE must name a folder that every machine sees, or "
                f"{VARIABLE} a URL that all can read"
            )
        return folder

    def check_url(self) -> None:
        """Raise ConfigError if the store could not be copied to the URL once it is made."""
        if self.url is not None:
            with self._remote() as (system, folder):
                system.makedirs(folder, exist_ok=True)

    def publish(self) -> None:
        """Copy it to the URL, if there is one and it is not there; the manifest last, which says that it is whole.

        Raises:
            ConfigError: the URL cannot be written to.
        """
        if self.url is None or self._is_published():
            return
        with self._remote() as (system, folder):
            system.makedirs(folder, exist_ok=True)
            for path in sorted(self.path.iterdir(), key=lambda path: path.name == MANIFEST):
                system.put_file(str(path), f"{folder}/{path.name}")

    def _is_published(self) -> bool:
        """Say whether all files that the manifest names are at the URL, each of its size."""
        if self.url is None:
            return False
        with self._remote() as (system, folder):
            if not system.exists(f"{folder}/{MANIFEST}"):
                return False
            try:
                sizes = json.loads(system.cat_file(f"{folder}/{MANIFEST}"))["files"]
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError):
                return False
            paths = {f"{folder}/{name}": size for name, size in sizes.items()}
            return all(system.exists(path) and system.size(path) == size for path, size in paths.items())

    @contextmanager
    def _remote(self) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
        """Yield the file system of the URL and the store's folder in it; what fails there is the user's to mend."""
        assert self.url is not None, "a store without a URL is not copied"
        try:
            yield fsspec.url_to_fs(f"{self.url.rstrip('/')}/{self.name}")
        except (ImportError, ValueError) as error:
            raise ConfigError(without_secrets(f"{VARIABLE}={self.url}: fsspec cannot open it: {error}")) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ConfigError(without_secrets(f"{VARIABLE}={self.url}: {' '.join(str(error).split())}")) from error

    def _copy_to(self, target: Path) -> None:
        """Copy the store to a folder of this machine; processes that want it too wait for the first."""
        with made_once(target) as partial:
            if partial is None:
                return
            told = without_secrets(str(self.url))
            log.info("copying %s from %s", self.name, told)
            with self._remote() as (system, folder):
                for path in system.ls(folder, detail=False):
                    system.get_file(path, str(partial / Path(path).name))
            if not is_whole(partial):
                raise DataError(f"{told}: the copy of {self.name} has not the sizes of the original; try again")
