"""The dendrogram: conversions, moments that merging keeps, duplicates first, and the right number of experts."""

import numpy as np
import oracle
import pandas as pd
import pytest

from bayes_moe import gaussian_gated
from bayes_moe.draws import dendrogram

TRUTH = {
    "pi": [0.3, 0.4, 0.3],
    "c": [[-2.0], [0.0], [2.0]],
    "Gamma": np.full((3, 1, 1), 0.3),
    "a": [[1.0], [-1.0], [0.0]],
    "b": [0.0, 1.0, -1.0],
    "nu": [0.1, 0.2, 0.1],
}


@pytest.mark.parametrize("shape", [(3, 2, 1), (2, 3, 2)])
def test_the_joint_form_is_the_oracles_and_back(shape):
    moe, rng = gaussian_gated(*shape[:2], responses=shape[2]), np.random.default_rng(0)
    spd = {n: (lambda m: m @ np.swapaxes(m, 1, 2) + 0.1 * np.eye(s))(rng.normal(size=(shape[0], s, s)))
           for n, s in (("Gamma", shape[1]), ("nu", shape[2]))}  # fmt: skip
    nu = spd["nu"][:, 0, 0] if shape[2] == 1 else spd["nu"]
    real = {n: rng.normal(size=moe.fields[n].shape) for n in ("c", "a", "b")}
    params = moe.params(pi=rng.dirichlet(np.ones(shape[0])), Gamma=spd["Gamma"], nu=nu, **real)
    joint = dendrogram.to_joint(params)
    for found, expected in zip(zip(*joint, strict=True), oracle.joint_atoms(params), strict=True):
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12)
    for name, value in dendrogram.from_joint(*joint, shape[1], shape[2]).items():
        np.testing.assert_allclose(value, params[name], rtol=1e-9, atol=1e-12)


def test_merging_keeps_weight_mean_and_covariance_and_ends_with_one_atom():
    moe = gaussian_gated(3, 1)
    levels = dendrogram.dendrogram(moe, TRUTH)
    assert [level.experts for level in levels] == [3, 2, 1]
    assert levels[-1].height == np.inf
    moments = []
    for level in levels:
        atoms = oracle.joint_atoms(level.params)
        mean = sum(w * m for w, m, _ in atoms)
        moments.append(np.append(mean, sum(w * (s + np.outer(m - mean, m - mean)) for w, m, s in atoms)))
    np.testing.assert_allclose(moments[1:], moments[:1] * 2, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_a_split_atom_is_merged_first_and_three_are_chosen():
    split = {n: np.concatenate([np.asarray(v), np.asarray(v)[1:2]]) for n, v in TRUTH.items()}
    split["pi"] = [0.3, 0.15, 0.3, 0.25]
    split["c"] = split["c"] + np.array([[0.0], [0.02], [0.0], [-0.02]])
    levels = dendrogram.dendrogram(gaussian_gated(4, 1), split)
    assert (1, 3) in levels[1].merged
    assert levels[0].height < 0.01 < levels[1].height
    x, y = gaussian_gated(3, 1).simulate_joint(0, TRUTH, 1000)
    criterion = dendrogram.choose(gaussian_gated(4, 1), levels, x, y)
    assert min(criterion, key=criterion.get) == 3
    assert set(criterion) == {2, 3, 4}


def test_columns_of_another_name_are_refused():
    moe = gaussian_gated(3, ["u"])
    with pytest.raises(ValueError, match="x must have the columns"):
        dendrogram.choose(moe, dendrogram.dendrogram(moe, TRUTH), pd.DataFrame({"v": np.arange(4.0)}), np.zeros(4))


def test_other_models_are_refused():
    moe = gaussian_gated(2, 1, covariance="spherical")
    with pytest.raises(ValueError, match="covariance='full'"):
        dendrogram.dendrogram(moe, {"pi": [0.5, 0.5], "c": 0, "Gamma": 1, "a": 0, "b": 0, "nu": 1})
