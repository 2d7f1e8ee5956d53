"""Anderson's acceleration: the map's own fixed points in fewer steps, plain iteration where it loses the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curve_cases import draw_standin

from bayes_moe.ground.compilation import jitted
from mle.kernel import kernel_em
from mle.kernel import plan as curve_plan
from mle.local import anderson
from mle.local import engines as local_em


def iterate(image, point, count, near=True):
    """Return the points of an accelerated iteration, the first included."""
    memory, points = anderson.empty(point), [point]
    for _ in range(count):
        memory, point = anderson.step(memory, point, image(point), jnp.asarray(near))
        points.append(point)
    return np.array(points), memory


def linear(dimension, largest=0.9):
    """Return a contraction x -> A x + b with known eigenvalues, and its fixed point."""
    rng = np.random.default_rng(dimension)
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    square = basis @ np.diag(np.linspace(0.1, largest, dimension)) @ basis.T
    shift = rng.normal(size=dimension)
    return lambda x: square @ x + shift, np.linalg.solve(np.eye(dimension) - square, shift)


@pytest.mark.parametrize("dimension", range(1, anderson.LENGTH + 1))
def test_a_linear_map_is_solved_in_as_many_steps_as_it_has_eigenvalues(dimension):
    """Walker and Ni (2011): as GMRES. The last step is the image of the solution; the ridge costs some digits."""
    with jax.enable_x64(True):
        image, fixed = linear(dimension)
        points, _ = iterate(image, jnp.zeros(dimension), dimension + 1)
    assert np.abs(points[-1] - fixed).max() < 1e-4 * np.abs(fixed).max()  # plain steps leave 0.9^(dimension + 1) of it


def test_far_from_the_fixed_point_it_is_the_plain_iteration():
    with jax.enable_x64(True):
        image, _ = linear(4)
        points, _ = iterate(image, jnp.zeros(4), 5, near=False)
        for before, after in zip(points[:-1], points[1:], strict=True):
            np.testing.assert_allclose(after, image(before), rtol=1e-12)


def test_a_map_that_never_settles_is_left_to_itself():
    """Steps of random size lose the way; after a few losses each point is the image of the last."""
    sizes = iter(10.0 ** np.random.default_rng(0).uniform(-3, 3, size=200))
    with jax.enable_x64(True):
        points, memory = iterate(lambda x: x + next(sizes), jnp.zeros(3), 60)
        assert memory.lost == anderson.PATIENCE
        assert not memory.on
        assert np.isfinite(points).all()


@pytest.mark.slow
def test_kernel_em_reaches_the_plain_iterations_fixed_point_in_half_the_steps():
    model, rows = draw_standin()
    fit = kernel_em.fit(model, *rows, h=0.21, random_state=0)
    begin = kernel_em.fit(model, *rows, h=0.21, random_state=0, max_iter=3)
    plan, theta, count = curve_plan.plan_of(fit), begin.theta, 0
    with jax.enable_x64(True):
        for count in range(1, 500):  # noqa: B007 - the count is asked for below
            before, theta = theta, plain_step(plan, fit.data, theta)
            if np.abs(theta - before).max() < 1e-7:
                break
        again = kernel_em._consistent(plan, fit.data, begin.theta)
    assert again.converged.all()
    assert again.n_iter < count / 2
    np.testing.assert_allclose(again.theta, theta, atol=1e-4)


def plain_step(plan, data, theta):
    """Return the image of theta: responsibilities from it, then an M-step at every u."""
    return np.asarray(jitted(_image)(plan.model, data, plan.windows, theta, plan.free))


def _image(model, data, windows, theta, free):
    r = local_em.responsibilities(model, theta, data, windows)
    seen = jnp.moveaxis(r[:, windows.index], 1, 0)
    return local_em.m_steps(model, theta, local_em.around(data, windows), seen, free)
