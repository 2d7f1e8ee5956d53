"""Every block of Python in the README runs, in order, as one script."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_readme_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    script = "\n".join(blocks)
    # A quick size: fewer draws, the same calls.
    script = script.replace("rng_key=0, prior", "rng_key=0, num_warmup=100, num_samples=200, num_chains=2, prior")
    script = script.replace("rng_key=1, num_chains=2", "rng_key=1, num_warmup=100, num_samples=100, num_chains=2")
    script = script.replace("bands.bootstrap(kernel, ", "bands.bootstrap(kernel, replicates=20, ")
    names = {}
    exec(compile(script, "README.md", "exec"), names)
    assert len(blocks) == 4
    assert names["fit"].log_likelihood >= names["moe"].log_density(names["truth"], names["x"], names["y"]).sum()
    assert np.isfinite(names["mine"]["posterior"]["scale"].values).all()
    low, high = names["band"].lower["alpha"][:, 0, 1], names["band"].upper["alpha"][:, 0, 1]
    assert np.mean((low <= 1 + names["band"].fit.grid) & (1 + names["band"].fit.grid <= high)) > 0.5
