"""What the schemas of a report share."""

from __future__ import annotations

from pydantic import ConfigDict

from optkit.core.types import Record


class Finding(Record):
    """Base of what is read out of `details`: keys that this version does not know are skipped."""

    model_config = ConfigDict(extra="ignore")
