"""Linear algebra runs on one thread while a function of the ensemble runs, and on as many as before afterwards."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hms_ray.ensemble import fit
from hms_ray.ensemble.threads import on_one_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_a_wrapped_function_has_one_thread_and_gives_the_others_back():
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert before and set(on_one_thread(blas_threads)()) == {1}
        assert blas_threads() == before


def test_they_are_given_back_after_an_error():
    @on_one_thread
    def fail():
        raise RuntimeError("inside")

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert blas_threads() == before


def test_arguments_and_name_are_the_functions_own():
    @on_one_thread
    def double(x, *, times=2):
        """Double."""
        return x * times

    assert (double(3), double(3, times=5), double.__name__, double.__doc__) == (6, 15, "double", "Double.")


def test_the_estimator_is_fitted_on_one_thread():
    seen, probs = [], np.full((4, 2, 2), 0.5)
    with threadpool_limits(2, "blas"):
        fit(probs, probs[:, 0], folds=[0, 1, 0, 1], pool="linear", progress=lambda *_: seen.extend(blas_threads()))
    assert set(seen) == {1}
