"""Mixtures of experts: one likelihood, a NUTS posterior and everything that follows from the model."""

import bayes_moe.ground._numpyro  # noqa: F401 - before anything reads NumPyro
from bayes_moe.families import contaminated, gaussian_gated, varying_coefficient
from bayes_moe.ground import doors
from bayes_moe.ground.version import VERSION
from bayes_moe.model.moe import MoE

__all__ = ["MoE", "contaminated", "gaussian_gated", "varying_coefficient"]
__version__ = VERSION

ROOMS = {
    "ground": (
        "blocks compilation compile_cache data dates flags keys labels numerics parameters tables threads tracing"
    ),
    "model": "activations experts frozen gates gaussian likelihood moe normal origin responses units",
    "varying": "bands formula indexed",
    "theory": "information losses solvability voronoi",
    "nuts": "chains datatree gibbs mass modes numpyro_model plainer priors repulsion sampler transitions",
    "draws": "dendrogram diagnostics invariants loo movement relabel",
    "curves": "bases credible curve_draws:draws curve_starts:starts curve_tree:tree smooth sparsity",
}
__getattr__ = doors.to_rooms(__name__, ROOMS)
