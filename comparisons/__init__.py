"""Maximum likelihood and Bayes side by side, and how fast each approaches the truth."""

from bayes_moe.ground import doors

ROOMS = {
    "study": "checks contract estimators keys knobs labels returned rows valid",
    "report": "coverage figures optimisation rates summary slopes splits tails pictures files",
    "contaminated": "digits regimes",
    "curves": (
        "blood blood_figure blood_fits blood_study curve_estimators:estimators "
        "curve_figures:figures curve_power:power curve_regimes:regimes curve_studies:studies curve_summary:summary"
    ),
    "gaussian": (
        "cell_figure:voronoi_figure cell_rates:voronoi_rates counterexample gaussian_regimes:regimes "
        "gaussian_studies:studies iris iris_figure mixtures:estimators"
    ),
    "running": (
        "beside cell compare described description engine export findings "
        "log opening pools progress recipe salvage schema store"
    ),
}
__getattr__ = doors.to_rooms(__name__, ROOMS)
