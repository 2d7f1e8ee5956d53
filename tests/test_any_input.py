"""Whatever is passed for an argument, what comes back is an answer or a ValueError that names the argument."""

import datetime
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from scipy import sparse

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.draws import dendrogram
from bayes_moe.model import units
from bayes_moe.model.experts import Frozen
from bayes_moe.nuts.priors import resolve
from bayes_moe.theory import information, losses, voronoi

X = np.random.default_rng(0).normal(size=(6, 2))
LABELS, REAL = np.array([0, 1, 2, 0, 1, 2]), np.arange(6.0)
ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
LOG = np.log(np.full((6, 3), 1 / 3))
M, G = contaminated(ETA0, activation="tanh"), gaussian_gated(2, 2)
P = M.params(tau=0.5, beta=[1.0, -1.0], eta=[[2.0, 0.0], [0.0, -2.0]])
Q = G.params(pi=[0.4, 0.6], c=[[0.0, 0.0], [1.0, 1.0]], Gamma=np.eye(2), a=0.0, b=0.0, nu=1.0)
LEVELS = dendrogram.dendrogram(G, Q)
MANY = np.random.default_rng(1).normal(size=(50, 2))
UNITS = units.Units.of(X, REAL)


class Unreadable:
    """An array of another library that NumPy can't read."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("on another device")


class Lying:
    """A sequence that is none."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        raise KeyError(index)


ANY = {
    "None": None,
    "text": "abc",
    "bytes": b"abc",
    "negative": -3,
    "NaN": np.nan,
    "bool": True,
    "object": object(),
    "set": {1, 2},
    "mapping": {"a": 1},
    "int keys": {1: 2.0},
    "empty": [],
    "0-d": np.array(1.5),
    "4-d": np.ones((1, 1, 1, 1)),
    "ragged": [[1], [1, 2]],
    "complex": np.ones((6, 2)) * 1j,
    "dates": np.array(["2020"] * 6, dtype="M8[D]"),
    "durations": np.array([1] * 6, dtype="m8[s]"),
    "texts": [["a", "b"]] * 6,
    "objects": np.array([object()] * 6),
    "decimals": [Decimal(1)] * 6,
    "fractions": [[Fraction(1, 2)] * 2] * 6,
    "huge ints": [10**400] * 6,
    "masked": np.ma.masked_array(np.ones(6), [1, 0, 0, 0, 0, 0]),
    "sparse": sparse.csr_array(np.ones((6, 2))),
    "frame of text": pd.DataFrame({"a": ["x"] * 6}),
    "frame of dates": pd.DataFrame({"a": pd.date_range("2020", periods=6), "b": 1.0}),
    "categorical": pd.Categorical(["a"] * 6),
    "function": lambda x: x,
    "class": int,
    "dataset": xr.Dataset(),
    "arrow": pa.array([1, None]),
    "arrow table": pa.table({"a": ["x"]}),
    "records": np.zeros(6, dtype=[("a", float)]),
    "NaNs": np.full((6, 2), np.nan),
    "beyond double": np.full((6, 2), np.longdouble("1e4000")),
    "unreadable": Unreadable(),
    "lying": Lying(),
    "times": [datetime.datetime(2020, 1, 1)] * 6,
    "mixture": [1, "a", None, 2.0, (1,), b"x"],
    "missing": [pd.NA] * 6,
}
ENTRIES = {
    "x: prepare": lambda v: M.prepare(v),
    "x: prepare, real": lambda v: G.prepare(v),
    "x: simulate": lambda v: M.simulate(0, P, v),
    "x: class_probabilities": lambda v: M.class_probabilities(P, v),
    "x: memberships": lambda v: G.memberships(Q, v),
    "x: predict": lambda v: G.predict(Q, v),
    "x: fisher": lambda v: information.fisher(M, P, v),
    "x: hellinger": lambda v: losses.hellinger(M, P, P, v),
    "x: choose": lambda v: dendrogram.choose(G, LEVELS, v, REAL),
    "x: table": lambda v: Frozen.table(LOG, v),
    "x: units": lambda v: units.Units.of(v, REAL),
    "x: standard": lambda v: UNITS.standard(v, REAL),
    "x: strong_identifiability": lambda v: information.strong_identifiability("tanh", np.ones((3, 2)), v),
    "x: mixture": lambda v: nuts.Mixture(M, P, v),
    "x: sample": lambda v: nuts.sample(M, v, LABELS, rng_key=0),
    "y: observe": lambda v: M.observe(X, v),
    "y: observe, real": lambda v: G.observe(X, v),
    "y: choose": lambda v: dendrogram.choose(G, LEVELS, X, v),
    "y: units": lambda v: units.Units.of(X, v),
    "weights: observe": lambda v: M.observe(X, LABELS, v),
    "params: tau": lambda v: M.params(**(P | {"tau": v})),
    "params: Gamma": lambda v: G.params(**(Q | {"Gamma": v})),
    "params: log_density": lambda v: M.log_density(v, X, LABELS),
    "params: predict": lambda v: G.predict(v, X),
    "params: fisher": lambda v: information.fisher(M, v, X),
    "params: dendrogram": lambda v: dendrogram.dendrogram(G, v),
    "params: original": lambda v: UNITS.original(v),
    "params: errors": lambda v: losses.errors(v, P),
    "params: errors of eta": lambda v: losses.errors(P | {"eta": v}, P),
    "params: aligned": lambda v: losses.aligned(P | {"tau": v}, P),
    "params: hellinger": lambda v: losses.hellinger(M, v, P, X),
    "params: cells": lambda v: voronoi.cells(v, Q),
    "params: wasserstein": lambda v: voronoi.wasserstein(Q | {"pi": v}, Q),
    "params: Mixture": lambda v: nuts.Mixture(M, v, X),
    "truth: errors": lambda v: losses.errors(P, {"tau": v}),
    "truth: voronoi": lambda v: voronoi.voronoi(Q, v),
    "curves: rase": lambda v: losses.rase(v, np.ones(6)),
    "frozen: contaminated": lambda v: contaminated(v),
    "frozen: table": lambda v: Frozen.table(v),
    "frozen: classifier": lambda v: Frozen.classifier(v),
    "frozen: contamination": lambda v: losses.contamination(P, P, frozen=v, regime="homogeneous"),
    "classes: contaminated": lambda v: contaminated(ETA0, classes=v),
    "features: contaminated": lambda v: contaminated(ETA0, features=v),
    "features: gaussian_gated": lambda v: gaussian_gated(2, v),
    "activation: contaminated": lambda v: contaminated(ETA0, activation=v),
    "reference: contaminated": lambda v: contaminated(ETA0, reference=v),
    "adapters: contaminated": lambda v: contaminated(ETA0, adapters=v),
    "gate: contaminated": lambda v: contaminated(ETA0, gate=v),
    "experts: gaussian_gated": lambda v: gaussian_gated(v, 2),
    "covariance: gaussian_gated": lambda v: gaussian_gated(2, 2, covariance=v),
    "rng_key: simulate": lambda v: M.simulate(v, P, X),
    "n: simulate_joint": lambda v: G.simulate_joint(0, Q, v),
    "n: cramer_rao": lambda v: information.cramer_rao(M, P, X, v),
    "regime: contamination": lambda v: losses.contamination(P, P, frozen=ETA0, regime=v),
    "ties: cells": lambda v: voronoi.cells(Q, Q, ties=v),
    "kind: voronoi": lambda v: voronoi.voronoi(Q, Q, kind=v),
    "rbar: voronoi": lambda v: voronoi.voronoi(Q, Q, rbar=v),
    "order: wasserstein": lambda v: voronoi.wasserstein(Q, Q, order=v),
    "omega: choose": lambda v: dendrogram.choose(G, LEVELS, X, REAL, v),
    "levels: choose": lambda v: dendrogram.choose(G, v, X, REAL),
    "moe: fisher": lambda v: information.fisher(v, P, X),
    "moe: hellinger": lambda v: losses.hellinger(v, P, P, X),
    "moe: dendrogram": lambda v: dendrogram.dendrogram(v, Q),
    "moe: model": lambda v: nuts.model(v),
    "moe: class_probabilities": lambda v: nuts.class_probabilities(v, xr.DataTree(), X),
    "idata: class_probabilities": lambda v: nuts.class_probabilities(M, v, X),
    "prior: resolve": lambda v: resolve(M, v),
    "prior: of tau": lambda v: resolve(M, {"tau": v}),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_errors_name_the_argument(entry):
    name, unlike = entry.partition(":")[0], {}
    for kind, value in ANY.items():
        try:
            ENTRIES[entry](value)
        except ValueError as error:
            if type(error) is not ValueError or not re.search(rf"\b{name}\b", str(error)):
                unlike[kind] = str(error)
        except Exception as error:  # noqa: BLE001 - what must not be
            unlike[kind] = repr(error)
    assert not unlike
