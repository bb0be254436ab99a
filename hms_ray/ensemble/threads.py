"""Linear algebra on one thread: matrices here are small, and threads that wait for each other are the slower way.

On a machine whose other cores are busy, as in a search, a second thread was measured to cost a factor of ten.
"""

import scipy.linalg  # noqa: F401  its linear algebra and NumPy's must be loaded to be found
from threadpoolctl import ThreadpoolController

on_one_thread = ThreadpoolController().wrap(limits=1, user_api="blas")
