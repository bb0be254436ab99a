"""Freed memory that a process keeps: on a CPU, to give it back to the system after each batch and to ask for it again
costs a third of the time."""

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h of glibc numbers them
MOST = 1 << 30  # bytes


@cache
def keep_freed() -> bool:
    """Keep what is freed from now on, until this process ends; return whether its C library can: glibc alone does."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = [mallopt(threshold, MOST) for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return taken == [1, 1]
