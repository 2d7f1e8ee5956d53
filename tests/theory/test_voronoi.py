"""Voronoi losses against brute-force cells, and Wasserstein distances against enumeration."""

import itertools

import jax
import numpy as np
import pytest
from selection import quick

from bayes_moe.theory import voronoi

EXACT = 1e-12
MEASURES = 1000
NAMES = ("c", "Gamma", "a", "b", "nu")
RATE = {1: 1, 2: 4, 3: 6}


def draw_measure(rng, k, d=1, grid=True):
    """Return a random measure; on a coarse grid, atoms coincide and tie all the time."""
    shapes = {"c": (d,), "Gamma": (d, d), "a": (d,), "b": (), "nu": ()}
    draw = (lambda s: rng.integers(0, 3, s).astype(float)) if grid else (lambda s: rng.normal(size=s))
    return {"pi": rng.dirichlet(np.ones(k)), **{name: draw((k, *s)) for name, s in shapes.items()}}


def norm(values):
    return float(np.sqrt(sum(v**2 for v in np.ravel(values))))


def brute_cells(params, truth, ties="all"):
    """Cells by the definition, one comparison at a time."""
    members = [[] for _ in truth["pi"]]
    for i in range(len(params["pi"])):
        distance = [sum(np.sum((params[n][i] - truth[n][j]) ** 2) for n in NAMES) for j in range(len(truth["pi"]))]
        nearest = [j for j, mine in enumerate(distance) if all(mine <= other for other in distance)]
        for j in nearest if ties == "all" else nearest[:1]:
            members[j].append(i)
    return members


def brute_loss(params, truth, kind, ties="all"):
    """The losses of reference.md, term by term."""
    total = 0.0
    for j, members in enumerate(brute_cells(params, truth, ties)):
        r = RATE.get(len(members), 7)
        total += abs(sum(params["pi"][i] for i in members) - truth["pi"][j])
        a_power = r / 2 if kind == "corrected" or (kind == "II" and not truth["c"][j].any()) else 2
        powers = {"c": r, "b": r, "Gamma": r / 2, "nu": r / 2, "a": a_power}
        for i in members:
            for name in NAMES:
                power = 1 if len(members) == 1 or kind == "linear" else powers[name]
                total += params["pi"][i] * norm(params[name][i] - truth[name][j]) ** power
    return total


def draw_pairs(k, k0, d=1):
    rng = np.random.default_rng(k + 10 * d)
    return [(draw_measure(rng, k, d), draw_measure(rng, k0, d)) for _ in range(MEASURES // 4)]


@pytest.mark.parametrize(("k", "k0", "d"), quick([(4, 3, 1), (5, 3, 2), (2, 3, 1), (6, 2, 2)], (4, 3, 1)))
@pytest.mark.parametrize("kind", voronoi.KINDS)
def test_losses_are_those_of_brute_force_cells(k, k0, d, kind):
    pairs = draw_pairs(k, k0, d)
    stacked = [{name: np.stack([pair[s][name] for pair in pairs]) for name in ("pi", *NAMES)} for s in (0, 1)]
    with jax.enable_x64(True):
        for ties in voronoi.TIES:
            loss = jax.jit(jax.vmap(lambda p, t, ties=ties: voronoi.voronoi(p, t, kind=kind, ties=ties)))
            expected = [brute_loss(*pair, kind, ties) for pair in pairs]
            np.testing.assert_allclose(loss(*stacked), expected, rtol=EXACT, atol=EXACT)


@pytest.mark.slow
def test_the_measures_have_ties_and_empty_cells_and_the_cells_are_found():
    tied = empty = 0
    for k, k0, d in [(4, 3, 1), (2, 3, 1)]:
        for params, truth in draw_pairs(k, k0, d)[:100]:
            for ties in voronoi.TIES:
                found = np.asarray(voronoi.cells(params, truth, ties=ties))
                members = brute_cells(params, truth, ties)
                assert [list(np.flatnonzero(row)) for row in found] == members
            tied += sum(map(len, brute_cells(params, truth))) > k
            empty += any(not m for m in members)
    assert min(tied, empty) > 20


def test_an_exact_fit_has_no_loss_and_labels_do_not_matter():
    truth = draw_measure(np.random.default_rng(0), 3, 2, grid=False)
    turned = {name: np.roll(value, 1, axis=0) for name, value in truth.items()}
    for kind in voronoi.KINDS:
        assert float(voronoi.voronoi(turned, truth, kind=kind)) == 0
    assert float(voronoi.wasserstein(turned, truth)) == pytest.approx(0, abs=1e-12)
    params = draw_measure(np.random.default_rng(1), 4, 2, grid=False)
    shuffled = {name: value[[2, 0, 3, 1]] for name, value in params.items()}
    assert voronoi.voronoi(shuffled, turned) == pytest.approx(float(voronoi.voronoi(params, truth)))


def test_published_and_corrected_agree_for_two_atoms_and_differ_for_three():
    truth = {n: v[:1] for n, v in draw_measure(np.random.default_rng(0), 1, grid=False).items()}
    for k, same in ((2, True), (3, False)):
        params = draw_measure(np.random.default_rng(5), k, grid=False)
        published, corrected = (float(voronoi.voronoi(params, truth, kind=kind)) for kind in ("I", "corrected"))
        assert (published == pytest.approx(corrected)) == same


def brute_wasserstein(params, truth, order):
    """With equal weights, the best permutation."""
    k = len(params["pi"])
    cost = [
        [norm(np.concatenate([np.ravel(params[n][i] - truth[n][j]) for n in NAMES])) for j in range(k)]
        for i in range(k)
    ]
    best = min(sum(cost[i][p[i]] ** order for i in range(k)) for p in itertools.permutations(range(k)))
    return (best / k) ** (1 / order)


@pytest.mark.parametrize("order", [1, 2, 4, 6])
def test_wasserstein_is_the_best_permutation_for_equal_weights(order):
    rng = np.random.default_rng(order)
    for _ in range(10):
        params, truth = ({**draw_measure(rng, 4, 2, grid=False), "pi": np.full(4, 0.25)} for _ in range(2))
        expected = brute_wasserstein(params, truth, order)
        assert float(voronoi.wasserstein(params, truth, order=order)) == pytest.approx(expected, rel=1e-9)


def test_wasserstein_to_one_atom_is_a_mean_and_vmaps():
    rng = np.random.default_rng(0)
    draws = [draw_measure(rng, 4, 2, grid=False) for _ in range(50)]
    truth = draw_measure(rng, 1, 2, grid=False)
    expected = [
        np.sqrt(sum(w * sum(norm(draw[n][i] - truth[n][0]) ** 2 for n in NAMES) for i, w in enumerate(draw["pi"])))
        for draw in draws
    ]
    stacked = {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
    with jax.enable_x64(True):
        found = jax.vmap(lambda p: voronoi.wasserstein(p, truth, order=2))(stacked)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_draw_that_is_not_finite_spoils_no_other():
    rng = np.random.default_rng(0)
    draws = [draw_measure(rng, 3, grid=False) for _ in range(4)]
    stacked = {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
    stacked["c"][1], stacked["pi"][2] = np.nan, np.nan
    with jax.enable_x64(True):
        found = jax.vmap(lambda p: voronoi.wasserstein(p, draws[0]))(stacked)
    assert np.isnan(found).tolist() == [False, True, True, False]
    assert found[3] == pytest.approx(float(voronoi.wasserstein(draws[3], draws[0])))


ONE = draw_measure(np.random.default_rng(0), 3)
BAD = [
    (lambda: voronoi.voronoi(ONE, ONE, kind="III"), "kind must be one of"),
    (lambda: voronoi.cells(ONE, ONE, ties="last"), "ties must be one of"),
    (lambda: voronoi.wasserstein(ONE, ONE, order=0.5), "order must be at least 1"),
    (lambda: voronoi.voronoi({k: v for k, v in ONE.items() if k != "b"}, ONE), "params must hold what truth holds"),
    (lambda: voronoi.voronoi({k: v[None] for k, v in ONE.items()}, ONE), "jax.vmap"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
