"""When something is to happen again: ``every 6h``, a cron expression in UTC, or never.

``every`` counts from the epoch, not from the last time: 6h is 00:00, 06:00, 12:00 and 18:00 UTC whenever the daemon
was started, so that a restart neither delays nor repeats.  Cron's fields are read in UTC, which has no hour twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from daemon.config.values import duration
from engine.errors import InvalidRequest

NEVER = 2**63 - 1
"""The time of what does not happen; later than every other."""

ALLOWED = "'every 6h' (s, m, h or d), five cron fields in UTC as '30 2 * * 1-5', or '' for never"
SECOND = 1_000_000_000
LONGEST_S = 3650 * 86400
_LONGEST_TEXT = 200  # characters: no expression of use is longer, and lists in it cost time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S = int((datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())  # NEVER is in 2262


@dataclass(frozen=True)
class Schedule:
    """A schedule; ``every_s`` 0 for cron's, both empty for never. Made by ``parse``."""

    text: str
    every_s: int = 0
    cron: str = ""

    @staticmethod
    def parse(text: str) -> Schedule:
        """Read one. Raises InvalidRequest, also for what can never happen, as the 30th of February."""
        words = text.split(" ")
        if not text:
            return Schedule("")
        try:
            if len(text) > _LONGEST_TEXT or not (text.isascii() and text.isprintable()):
                raise ValueError
            if words[0] == "every" and len(words) == 2:
                return Schedule(text, every_s=_seconds(words[1]))
            cron = " ".join(text.split())
            if len(cron.split(" ")) != 5 or _after(cron, _EPOCH) is None:
                raise ValueError
            return Schedule(text, cron=cron)
        except (ValueError, CronSimError):
            raise InvalidRequest(
                f"schedule {text[:_LONGEST_TEXT]!r}", expected=ALLOWED, do="write one of these"
            ) from None

    def next(self, after_ns: int) -> int:
        """The first time after that one, in ns since the epoch; ``NEVER`` when there is none."""
        after = max(after_ns // SECOND, 0)
        if after >= _LAST_S or not (self.every_s or self.cron):
            return NEVER
        if self.every_s:
            return (after // self.every_s + 1) * self.every_s * SECOND
        found = _after(self.cron, _EPOCH + timedelta(seconds=after))
        return NEVER if found is None else int((found - _EPOCH).total_seconds()) * SECOND


def _seconds(text: str) -> int:
    found = duration(text)
    if found != int(found) or not 1 <= found <= LONGEST_S:
        raise ValueError(text)
    return int(found)


def _after(cron: str, moment: datetime) -> datetime | None:
    try:
        return next(CronSim(cron, moment), None)
    except AssertionError:  # how the library meets some nonsense
        raise ValueError(cron) from None
