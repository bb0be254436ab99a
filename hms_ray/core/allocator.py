"""Keep freed memory in the process: on a CPU, returning it to the system after each batch takes a third of the time."""

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h of glibc numbers them
MOST = 1 << 30  # bytes


@cache
def keep_freed() -> bool:
    """Keep memory freed from now on until the process ends; return whether its C library, glibc only, supports it."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return [mallopt(threshold, MOST) for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)] == [1, 1]
