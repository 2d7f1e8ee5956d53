"""How long a call took, the time JAX spent on compiling told apart by JAX's own events."""

from __future__ import annotations

from time import perf_counter

import jax

COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class CompileClock:
    """Context manager: seconds spent in it, split into ``compile`` and ``run``, and the ``programs`` compiled.

    Running twice would not tell them apart: a NumPyro ``MCMC`` object compiles again at its second run.
    """

    def __enter__(self) -> CompileClock:
        self.compile, self.programs = 0.0, 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self._began = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.run = max(perf_counter() - self._began - self.compile, 0.0)
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: object) -> None:
        if event in COMPILING:
            self.compile += seconds
            self.programs += event == COMPILING[-1]
