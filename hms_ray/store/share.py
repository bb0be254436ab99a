"""Locate stores: in the cache of this machine, or at a URL from which machines without a shared disk copy them."""

import errno
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
from hms_ray.store._writer import MANIFEST, is_whole, locked

log = logging.getLogger(__name__)
VARIABLE = "HMS_RAY_STORE"


def cache_root() -> Path:
    """Return the folder of prepared data: $HMS_RAY_CACHE, or hms_ray in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HMS_RAY_CACHE") or Path(base) / "hms_ray").absolute()


@contextmanager
def made_once(target: Path, resume: bool = False) -> Iterator[Path | None]:
    """Yield a folder that is renamed to `target` at the end, or None if `target` is complete.

    One process makes it; others wait.

    resume: keep the content that a killed attempt has left in the folder; else it is empty
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
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
    """The name of a store, which is sent to workers.

    made_in: its parent folder on the machine that made it
    url: folder with a copy for other machines, of any type that fsspec supports; None: the machines share a disk
    """

    name: str
    made_in: Path
    url: str | None

    @classmethod
    def of(cls, name: str) -> "StoreRef":
        """Return the store of that name, existing or not, in the cache of this machine."""
        url = os.environ.get(VARIABLE) or None
        if url and "://" not in url:
            url = str(Path(url).absolute())  # workers have another working folder
        return cls(name, cache_root() / "prepared", url)

    @property
    def path(self) -> Path:
        """Its folder on the machine that makes it."""
        return self.made_in / self.name

    def is_here(self) -> bool:
        """Return whether it is complete here; a published one is copied first."""
        if not is_whole(self.path) and self._is_published():
            self._copy_to(self.path)
        return is_whole(self.path)

    @property
    def copy_path(self) -> Path:
        """The folder of its copy in the cache of this machine."""
        return cache_root() / "prepared" / self.name

    def find(self) -> Path | None:
        """Return its folder on this machine, copied from the URL if necessary; None if it does not exist.

        Raises:
            ConfigError: the URL cannot be read.
        """
        if is_whole(self.path):
            return self.path
        if not is_whole(self.copy_path) and self._is_published():
            self._copy_to(self.copy_path)
        return self.copy_path if is_whole(self.copy_path) else None

    def local(self) -> Path:
        """Return its folder on this machine, as `find` does.

        Raises:
            DataError: it is neither here nor at the URL.
        """
        if (folder := self.find()) is None:
            raise DataError(
                f"{self.path}: no prepared data here; HMS_RAY_CACHE must name a folder that every machine sees, or "
                f"{VARIABLE} a URL that all can read"
            )
        return folder

    def check_url(self) -> None:
        """Raise ConfigError if the URL cannot be written to."""
        if self.url is not None:
            with self._remote() as (system, folder):
                system.makedirs(folder, exist_ok=True)

    def publish(self) -> None:
        """Copy it to the URL if it is not there yet; the manifest is copied last, because it marks a complete store.

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
        """Return whether all files of the manifest are at the URL with the right size."""
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
        """Yield the file system of the URL and the store's folder in it; errors become a ConfigError."""
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
        """Copy the store to a folder of this machine; one process copies, others wait."""
        with made_once(target) as partial:
            if partial is None:
                return
            url = without_secrets(str(self.url))
            log.info("copying %s from %s", self.name, url)
            with self._remote() as (system, folder):
                for path in system.ls(folder, detail=False):
                    system.get_file(path, str(partial / Path(path).name))
            if not is_whole(partial):
                raise DataError(f"{url}: the copy of {self.name} has not the sizes of the original; try again")
