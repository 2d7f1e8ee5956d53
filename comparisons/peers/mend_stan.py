"""Build PyStan's compiled half anew, where its wheel brought one for another Python.

Some wheels of httpstan for Python 3.13 hold a ``stan_services.o`` compiled against Python 3.10, which no model can be
linked with. The source lies beside it. Needs g++; without it Stan is left out of the bench, which says so.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

MACROS = (
    "BOOST_DISABLE_ASSERTS",
    "BOOST_PHOENIX_NO_VARIADIC_EXPRESSION",
    "STAN_THREADS",
    "_REENTRANT",
    "_GLIBCXX_USE_CXX11_ABI=0",
)
RENAMED = b"_PyThreadState_UncheckedGet"  # gone since Python 3.13


def main() -> None:
    """Mend what needs it."""
    found = importlib.util.find_spec("httpstan")
    if found is None or sys.version_info < (3, 13):
        return
    folder = Path(found.origin).parent
    target, fresh = folder / "stan_services.o", folder / "fresh.o"
    if target.exists() and RENAMED not in target.read_bytes():
        return
    if shutil.which("g++") is None:
        print("Stan will be left out: PyStan needs g++")
        return
    print("Compiling a part of PyStan: a minute, once")
    include = [f"-I{path}" for path in (folder, folder / "include", sysconfig.get_path("include"))]
    flags = ["-c", "-O3", "-std=c++17", "-fPIC", "-w", *(f"-D{macro}" for macro in MACROS), *include]
    command = ["g++", *flags, str(folder / "stan_services.cpp"), "-o", str(fresh)]
    if subprocess.run(command, check=False).returncode == 0:
        fresh.replace(target)
    else:
        print("Stan will be left out: PyStan could not be compiled")


if __name__ == "__main__":
    main()
