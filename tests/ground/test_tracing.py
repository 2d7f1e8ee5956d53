"""Handlers of the user's, active here or in other threads, never reach what we trace, nor ours the user's."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats

from bayes_moe import nuts
from bayes_moe.ground import compilation
from bayes_moe.ground.tracing import TRACING
from bayes_moe.nuts import modes

X, Y = np.array([0.5, -1.0, 2.0]), np.array([0.1, 0.2, -0.3])
HANDLERS = {
    "scale": lambda: handlers.scale(scale=0.01),
    "mask": lambda: handlers.mask(mask=False),
    "seed": lambda: handlers.seed(rng_seed=0),
    "condition": lambda: handlers.condition(data={"b": 0.0}),
    "substitute": lambda: handlers.substitute(data={"b": 7.0}),
    "do": lambda: handlers.do(data={"b": 3.0}),
    "block": lambda: handlers.block(hide=["b"]),
    "scope": lambda: handlers.scope(prefix="user"),
    "plate": lambda: numpyro.plate("outer", 5),
    "trace": handlers.trace,
}


def fresh():
    """Return a model that nothing was compiled for yet."""

    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("i", len(x)):
            numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)

    return model


def potential(model, b):
    """Negative log posterior as the package's engine has it."""
    with jax.enable_x64(True):
        args = compilation.as_arrays((X, Y))
        where = modes.layout(model, args)
        return modes.objective(model, where, args)(np.array([b]))[0]


def exact(b):
    """Compute the same with SciPy."""
    return -stats.norm.logpdf(b) - stats.norm.logpdf(Y, b * X).sum()


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_handler_that_is_active_is_not_compiled_in(handler):
    model = fresh()
    with handler():
        assert potential(model, 0.7) == pytest.approx(exact(0.7), rel=1e-12)
    assert potential(model, 0.7) == pytest.approx(exact(0.7), rel=1e-12)


def test_a_fit_inside_handlers_is_that_of_the_model_alone():
    run = {"rng_key": 0, "num_warmup": 50, "num_samples": 20, "num_chains": 1, "progress_bar": False}
    with HANDLERS["scale"](), HANDLERS["seed"](), HANDLERS["plate"](), HANDLERS["trace"]() as seen:
        idata = nuts.sample(fresh(), X, Y, **run, log_likelihood=True)
    assert set(seen) <= {"outer"}
    b = idata["posterior"]["b"].values[0]
    np.testing.assert_allclose(idata["sample_stats"]["lp"][0], [-exact(value) for value in b], rtol=1e-10)
    np.testing.assert_allclose(idata["log_prior"]["b"][0], stats.norm.logpdf(b), rtol=1e-10)
    np.testing.assert_allclose(idata["log_likelihood"]["y"][0], stats.norm.logpdf(Y, np.outer(b, X)), rtol=1e-10)


def test_handlers_of_other_threads_and_ours_do_not_meet():
    stop, wrong, rounds = threading.Event(), [], []

    def user(number):
        while not stop.is_set():
            with handlers.trace() as seen, handlers.scale(scale=1e-3):
                numpyro.sample(f"own_{number}", dist.Normal(0.0, 1.0), obs=0.5)
            rounds.append(number)
            if set(seen) != {f"own_{number}"}:
                wrong.append(set(seen))

    thread = threading.Thread(target=user, args=(0,))  # one: NumPyro itself can't do with two
    thread.start()
    try:
        values = [potential(fresh(), 0.3) for _ in range(3)]
        for _ in range(20):
            with TRACING, handlers.trace() as seen:
                numpyro.deterministic("ours", jnp.zeros(1))
            assert set(seen) == {"ours"}
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert len(rounds) > 3
    np.testing.assert_allclose(values, exact(0.3), rtol=1e-12)


def test_isolation_within_isolation_and_after_an_error():
    before = numpyro.primitives._PYRO_STACK
    with handlers.trace() as outer:
        with pytest.raises(RuntimeError), TRACING, handlers.trace() as middle:
            with TRACING, handlers.trace() as inner:
                numpyro.deterministic("inner", 1.0)
            numpyro.deterministic("middle", 1.0)
            raise RuntimeError
        numpyro.deterministic("outer", 1.0)
    assert [set(seen) for seen in (outer, middle, inner)] == [{"outer"}, {"middle"}, {"inner"}]
    assert numpyro.primitives._PYRO_STACK is numpyro.handlers._PYRO_STACK is before
