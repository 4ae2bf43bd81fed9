"""What the schemas of a report share."""

from __future__ import annotations

from pydantic import ConfigDict

from optkit.core.types import Record

Interval = tuple[float, float]
Number = int | float
NO_REASON = "no reason was recorded"  # of an older version, or of what nobody asked for


class Finding(Record):
    """Base of what is read out of `details`: keys that this version does not know are skipped.

    JSON has no infinity, and a page cannot draw one.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
