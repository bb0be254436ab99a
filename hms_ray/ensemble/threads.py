"""Linear algebra on one thread: the matrices are small, so threads would mostly wait for each other.

On a machine whose other cores are busy, as in a search, a second thread was measured to be ten times slower.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import scipy.linalg  # noqa: F401  the controller finds only libraries that are loaded: this one's, and NumPy's
from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
T = TypeVar("T")
_controller = ThreadpoolController()


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, which then runs its linear algebra on one thread."""
    return cast(Callable[P, T], _controller.wrap(limits=1, user_api="blas")(function))
