"""Run the statistical tests under other keys, and print a table: ``python tests/keys.py 1 2 3 [--slow] [test files]``.

Without numbers, keys 1 to 20; without files, all. With --slow the slow tests too, which take hours. Each file has a
process of its own, in which its keys take turns: what is compiled for the first is there for the others.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VARIABLE = "BAYES_MOE_TEST_KEYS"  # as in montecarlo.py


class Outcomes:
    """Collect a word for each test."""

    def __init__(self):
        self.words = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.words[report.nodeid] = "FAIL" if report.failed else "ok"


def in_turn(file, keys, marks):
    """Return the outcomes of a file's tests under each key."""
    found = {}
    for key in keys:
        os.environ[VARIABLE] = str(key)
        for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(f"{HERE}/")]:
            if name.startswith("test_"):
                del sys.modules[name]  # with what it keeps of the last key
        sys.modules.pop("montecarlo", None)
        outcomes = Outcomes()
        pytest.main(["-q", "--no-header", "--tb=short", "-m", marks, str(file)], plugins=[outcomes])
        found[key] = outcomes.words
    return found


def table(results, keys):
    """Return a line for each test, a column for each key, and how many failed."""
    names = [name for found in results for name in dict.fromkeys(n for words in found.values() for n in words)]
    of = {name: found for found in results for words in found.values() for name in words}
    width = max(map(len, names), default=3)
    lines = ["key".ljust(width) + "".join(f"{key:>6}" for key in keys)]
    for name in names:
        lines.append(name.ljust(width) + "".join(f"{of[name][key].get(name, '-'):>6}" for key in keys))
    bad = sum(word == "FAIL" for found in results for words in found.values() for word in words.values())
    return "\n".join([*lines, f"{len(names)} tests under {len(keys)} keys: {bad} failures"]), bad


def main(arguments):
    """Run, print, and return the exit status."""
    keys = [int(word) for word in arguments if word.isdigit()] or list(range(1, 21))
    files = [Path(word).resolve() for word in arguments if word.endswith(".py")] or sorted(HERE.rglob("test_*.py"))
    marks = "statistical" if "--slow" in arguments else "statistical and not slow"
    results = []
    for file in files:
        if "mark.statistical" in file.read_text():
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                results.append(alone.submit(in_turn, file, keys, marks).result())
    text, bad = table(results, keys)
    print(text)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
