"""Linear algebra on one thread: matrices here are small, and threads that wait for each other are the slower way.

On a machine whose other cores are busy, as in a search, a second thread was measured to cost a factor of ten.
"""

from threadpoolctl import threadpool_limits

on_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
