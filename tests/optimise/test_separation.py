"""Separation by linear programming, against data whose answer is obvious and against the likelihood itself."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from mle.optimise import separation
from mle.optimise.separation import separated

RIDGES = 1e-4, 1e-7
GROWTH = 1.3  # of the coefficients from the first ridge to the second: 1.7 or more if separated, else 1.0
VECTORS = np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])


def line(values, labels):
    """Return one covariate with an intercept, and labels."""
    return np.column_stack([np.ones(len(values)), values]), np.array(labels)


OBVIOUS = {
    "complete": (*line([-2, -1, 1, 2], [0, 0, 1, 1]), True),
    "complete, far from the origin": (*line([98, 99, 101, 102], [0, 0, 1, 1]), True),
    "quasi: a tie at the border": (*line([-2, -1, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1]), True),
    "quasi: an isolated group": (np.array([[1, 0], [1, 0], [1, 1], [1, 1]]), np.array([0, 1, 1, 1]), True),
    "overlapping": (*line([-2, -1, 1, 2], [0, 1, 0, 1]), False),
    "one observation between": (*line([-2, -1, 1, 2, -1.5], [0, 0, 1, 1, 1]), False),
    "only ties": (*line([0, 0, 0], [0, 1, 1]), False),
    "one class": (*line([-2, 0, 1], [1, 1, 1]), True),
    "one observation": (*line([3], [0]), True),
    "no observation": (np.zeros((0, 2)), np.zeros(0, int), True),
    "all covariates zero": (np.zeros((4, 2)), np.array([0, 1, 0, 1]), False),
}


@pytest.mark.parametrize(("x", "y", "answer"), OBVIOUS.values(), ids=OBVIOUS)
def test_two_classes(x, y, answer):
    assert separated(x, y, 2) is answer
    assert separated(x, 1 - y, 2) is answer


def many_rows(kind):
    """Return 2000 rows: of overlapping classes, or separated by the one row whose second covariate is not zero."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 2)), rng.integers(2, size=2000)
    if kind == "one row":
        x[:, 1] = 0.0
        x[1001, 1], y[1001] = 1.0, 1
    return x, y


@pytest.mark.parametrize("kind", ["overlapping", "one row"])
def test_few_rows_settle_the_matter_only_where_they_can(kind, monkeypatch):
    x, y = many_rows(kind)
    seen, solve = [], separation.optimize.linprog

    def counted(*arguments, **options):
        seen.append(len(options["A_ub"]))
        return solve(*arguments, **options)

    monkeypatch.setattr(separation.optimize, "linprog", counted)
    assert separated(x, y, 2) is (kind == "one row")
    assert seen == ([2000] if kind == "one row" else [250])


def three_classes(rows=30):
    """Return covariates and the labels of three sectors."""
    x = np.random.default_rng(0).normal(size=(rows, 2))
    return x, np.argmax(x @ VECTORS.T, axis=1)


def test_several_classes():
    x, y = three_classes()
    assert separated(x, y, 3)
    tied, all_labels = np.vstack([x, np.zeros((3, 2))]), np.append(y, [0, 1, 2])
    assert separated(tied, all_labels, 3)
    assert not separated(np.repeat(x, 3, axis=0), np.tile([0, 1, 2], len(x)), 3)


def test_one_class_apart_from_others_that_overlap():
    x, _ = three_classes()
    left = x[:, 0] < 0
    y = np.where(left, 2, np.random.default_rng(1).integers(0, 2, len(x)))
    assert not separated(x[~left], y[~left], 2)
    assert separated(x, y, 3)
    strays = np.append(y, [0, 1, 2])
    assert not separated(np.vstack([x, [[-3.0, 0.0], [-3.0, 0.0], [3.0, 0.0]]]), strays, 3)


def test_a_class_without_observations_can_only_be_left_behind():
    x = np.random.default_rng(2).normal(size=(40, 2))
    y = np.random.default_rng(3).integers(0, 2, 40)
    with_intercept = np.column_stack([x, np.ones(40)])
    assert not separated(x, y, 3)
    assert separated(with_intercept, y, 3)
    assert not separated(with_intercept, y, 2)


def test_units_and_order_do_not_matter():
    x, y = three_classes()
    order = np.random.default_rng(4).permutation(len(y))
    overlapping = np.random.default_rng(5).integers(0, 3, len(y))
    for labels, answer in ((y, True), (overlapping, False)):
        for units in ([1.0, 1.0], [1e8, 1e-8], [-1.0, 1e3]):
            assert separated((x * units)[order], labels[order], 3) is answer
        for names in itertools.permutations(range(3)):
            assert separated(x, np.array(names)[labels], 3) is answer


def ridge_size(x, y, classes, ridge):
    """Return the length of the coefficients that maximise the likelihood less a ridge."""
    labels = np.eye(classes)[y]

    def objective(flat):
        b = flat.reshape(classes, -1)
        log_p = log_softmax(x @ b.T, axis=1)
        value = -np.sum(labels * log_p) + 0.5 * ridge * flat @ flat
        return value, ((np.exp(log_p) - labels).T @ x + ridge * b).ravel()

    def hessian(flat):
        p = np.exp(log_softmax(x @ flat.reshape(classes, -1).T, axis=1))
        blocks = p[:, :, None] * (np.eye(classes) - p[:, None, :])
        return np.einsum("nij,na,nb->iajb", blocks, x, x).reshape(len(flat), -1) + ridge * np.eye(len(flat))

    start, options = np.zeros(classes * x.shape[1]), {"gtol": 1e-3 * ridge, "maxiter": 500}
    return np.linalg.norm(minimize(objective, start, (), "trust-exact", True, hessian, options=options).x)


def random_small_table(seed):
    """Return a few observations on a small grid, so that ties and quasi-separation are common."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 4))
    x = rng.integers(-2, 3, size=(int(rng.integers(4, 14)), 2)).astype(float)
    return x, rng.integers(0, classes, len(x)), classes


def test_agrees_with_the_likelihood():
    tables = [random_small_table(seed) for seed in range(80)]
    answers = [separated(*table) for table in tables]
    with threadpool_limits(1, user_api="blas"):
        grows = [ridge_size(*t, RIDGES[1]) > GROWTH * ridge_size(*t, RIDGES[0]) for t in tables]
    assert answers == grows
    assert 20 < sum(answers) < 60
