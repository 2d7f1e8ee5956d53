"""A study's own findings, made by ``run`` and kept beside the fits, so that reports need not run the study's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comparisons.report import summary
from comparisons.running.store import Store
from comparisons.study.plan import Study

if TYPE_CHECKING:
    from comparisons.report.pictures import Picture


def keep(study: Study, store: Store) -> tuple[str, Picture] | None:
    """Make a study's findings of all its fits, and keep them; None without fits, or without findings."""
    rows = store.rows()
    if study.findings is None or not summary.sizes_of(rows):
        return None
    from comparisons.report import pictures  # noqa: PLC0415 - matplotlib takes a second to import

    text, figure = study.findings(rows)
    picture = pictures.drawn(figure)
    store.keep_findings(text, picture, len(rows))
    return text, picture
