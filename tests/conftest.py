"""What all tests share."""

import gc
from pathlib import Path

import pytest

from bayes_moe import compilation

MAPS = Path("/proc/self/maps")  # Linux allows a process 65,530 of these; a compiled program takes about twenty
MOST_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drop compiled programs once there are many: beyond the limit the next compilation would crash the process."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        compilation.forget()
        gc.collect()
