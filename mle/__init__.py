"""Maximum likelihood for mixtures of experts: EM, direct maximisation, and how sure to be of either."""

from bayes_moe.ground import doors
from mle.optimise.fit import Certificate, Fit, Start

__all__ = ["Certificate", "Fit", "Start"]

ROOMS = {
    "optimise": (
        "certify coordinates fit hyperplanes m_steps:steps objective "
        "problem responsibilities saturation scaled separation starts uncertainty"
    ),
    "local": "anderson kernels labels local_em:engines windows",
    "kernel": (
        "bands bandwidth curve_bootstrap:bootstrap curve_plan:plan curve_starts:starts "
        "curves:fit glrt kernel_em sandwich standard"
    ),
}
__getattr__ = doors.to_rooms(__name__, ROOMS)
