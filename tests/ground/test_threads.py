"""Work side by side in threads: order, precision, errors and interrupts."""

import contextlib
import os
import sys
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from bayes_moe import contaminated, varying_coefficient
from bayes_moe.ground import threads
from bayes_moe.ground.data import float64
from bayes_moe.nuts import posterior as nuts
from mle import newton
from mle.kernel import kernel_em


def test_results_are_in_order_and_made_side_by_side():
    together = threading.Barrier(3, timeout=30)

    def square(number):
        together.wait()  # breaks unless three run at once
        return number**2

    assert threads.each(square, range(6), workers=3) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("double", [True, False])
def test_precision_is_the_callers(double):
    with jax.enable_x64(double):
        made = threads.each(lambda number: jnp.asarray(number).dtype, [0.5, 1.5], workers=2)
    assert made == ["float64" if double else "float32"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_one_worker_is_the_callers_thread(workers):
    makers = threads.each(lambda _: threading.get_ident(), range(4), workers=workers)
    assert (threading.get_ident() in makers) == (workers == 1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_cancels_what_has_not_begun(error):
    begun = []

    def fail(number):
        begun.append(number)
        if number == 0:
            raise error
        threading.Event().wait(0.05)

    with pytest.raises(error):
        threads.each(fail, range(100), workers=2)
    assert len(begun) < 50


def test_long_work_that_is_no_longer_wanted_ends():
    ended = []

    def work(number):
        if number == 0:
            raise KeyboardInterrupt
        with contextlib.suppress(RuntimeError):  # what a climb may survive
            while True:
                threads.heed()

    def watched(number):
        try:
            work(number)
        except threads.Cancelled:
            ended.append(number)
            raise

    with pytest.raises(KeyboardInterrupt):
        threads.each(watched, [1, 0], workers=2)
    assert ended == [1]
    threads.heed()  # the caller's own work goes on


def test_an_interrupt_ends_climbs(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(200, 2)), np.arange(200) % 3
    climbs = []

    def climb(scaled, free, max_iter, tol):
        climbs.append(threading.get_ident())
        if len(climbs) == 1:
            raise KeyboardInterrupt
        while True:
            scaled.value_and_grad(free)

    monkeypatch.setattr(newton, "climb", climb)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        newton.fit(contaminated(np.zeros((3, 2))), x, y, n_init=4, random_state=0)
    assert len(climbs) <= 3


def test_an_outer_failure_ends_inner_work():
    begun = threading.Event()

    def inner(_):
        begun.set()
        while True:
            threads.heed()

    def outer(number):
        if number:
            begun.wait(30)
            raise ValueError
        threads.each(inner, range(2), workers=2)

    with pytest.raises(ValueError, match="^$"):
        threads.each(outer, range(2), workers=2)


def test_the_default_device_is_the_callers():
    with jax.default_device(jax.devices()[0]):
        made = threads.each(lambda _: jax.config.jax_default_device, range(2), workers=2)
    assert made == [jax.devices()[0]] * 2
    assert threads.each(lambda _: jax.config.jax_default_device, range(2), workers=2) == [None] * 2


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_overlapping_holders_of_blas_leave_it_as_it_was():
    with threadpool_limits(2, user_api="blas"):
        first, second = threads.one_blas_thread(), threads.one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}


def test_a_blas_loaded_since_is_looked_for(monkeypatch):
    with threads.one_blas_thread():
        looks = threads._libraries.cache_info().misses
    with threads.one_blas_thread():
        assert threads._libraries.cache_info().misses == looks
    monkeypatch.setitem(sys.modules, "loaded_since", object())
    with threads.one_blas_thread():
        assert threads._libraries.cache_info().misses == looks + 1


def test_line_searches_side_by_side_leave_no_filter():
    from scipy.optimize._linesearch import LineSearchWarning

    before, first, second = list(warnings.filters), warnings.catch_warnings(), warnings.catch_warnings()
    with threads.one_blas_thread():
        first.__enter__()
        warnings.simplefilter("ignore", LineSearchWarning)
        second.__enter__()
        warnings.simplefilter("ignore", LineSearchWarning)
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before


class Stop(Exception):
    """Raised where a test has seen enough."""


def test_a_fit_holds_blas_from_door_to_end(monkeypatch):
    """Matrices of a mode's curvature are rounded by how many threads BLAS has: alone and beside others the same."""
    seen = []

    def look(*args, **named):
        seen.append(blas_threads())
        raise Stop

    monkeypatch.setattr(nuts.transitions, "compile_ahead", lambda *args: None)
    monkeypatch.setattr(nuts.sampler, "run", look)
    monkeypatch.setattr(newton.starting, "run_all", look)
    monkeypatch.setattr(kernel_em, "make_plan", look)
    x, y = np.random.default_rng(0).normal(size=(30, 1)), np.arange(30) % 2
    moe, varying = contaminated([[-1.0], [1.0]]), varying_coefficient("normal", components=1)
    with threadpool_limits(2, user_api="blas"):
        for fit in (
            lambda: nuts.sample(moe, x, y, rng_key=0, progress_bar=False),
            lambda: newton.fit(moe, x, y, n_init=1, random_state=0),
            lambda: kernel_em.fit(varying, x, x, x[:, 0], y, h=0.5, grid=3, random_state=0),
        ):
            with pytest.raises(Stop):
                fit()
            assert blas_threads() == {2}
    assert seen == [{1}] * 3


def test_the_rounding_of_large_matrices_does_not_change_beside_a_fit():
    matrix = np.random.default_rng(0).normal(size=(300, 300))

    @float64
    def inner():
        return np.linalg.eigh(matrix + matrix.T)[1]

    with threadpool_limits(2, user_api="blas"):
        alone = inner()
        with threads.one_blas_thread():
            np.testing.assert_array_equal(inner(), alone)


def test_openmp_is_held_in_the_calling_thread_alone():
    from sklearn.cluster import KMeans

    rows = np.random.default_rng(0).normal(size=(5000, 3))

    def centres():
        return KMeans(3, n_init=1, random_state=0).fit(rows).cluster_centers_

    with threadpool_limits(2, user_api="openmp"), threads.one_openmp_thread():
        held = centres()
    with threadpool_limits(1, user_api="openmp"):
        np.testing.assert_array_equal(held, centres())


def test_cores_have_a_limit_of_the_users(monkeypatch):
    monkeypatch.setenv(threads.LIMIT, "1")
    assert threads.cores() == 1
    for wrong in ("0", "-1", "two"):
        monkeypatch.setenv(threads.LIMIT, wrong)
        with pytest.raises(ValueError, match=threads.LIMIT):
            threads.cores()


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch):
    assert threads.cores() == len(os.sched_getaffinity(0))
    for name in ("process_cpu_count", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    assert threads.cores() == os.cpu_count()
