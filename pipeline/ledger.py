"""Where every captured frame went: captured = delivered + dropped + failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import LedgerError


@dataclass
class Outages:
    """Times without a live source: its link broke, or nothing came."""

    count: int = 0
    seconds: float = 0.0
    """From the last picture before to the first after, together."""

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        return f"{self.count} outage{'s' * (self.count != 1)} of {self.seconds:.1f} s"


@dataclass
class Ledger:
    """Counts on the main path, and beside it what never was on it.

    `captured` is counted where the source hands a frame over, the others where a frame leaves the
    path, so that the balance is a check and not a definition.
    """

    captured: int = 0
    delivered: int = 0
    """Frames that every file sink has written, or that the caller has received."""
    failed: int = 0
    """Frames that were in the hands of a stage or sink when it failed."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames given up, by cause: `stopped` (the run was interrupted or failed elsewhere), `stale`
    (a newer live frame came), `late` (older than --max-latency)."""
    lost: dict[str, int] = field(default_factory=dict)
    """Frames that were never captured, by cause, for example `undecodable`."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Frames that a viewer did not show, by its name."""
    outages: Outages | None = None
    """What a live source was away; None of sources that are not live."""

    def drop(self, cause: str, count: int = 1) -> None:
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def lose(self, cause: str, count: int = 1) -> None:
        if count:
            self.lost[cause] = self.lost.get(cause, 0) + count

    @property
    def unaccounted(self) -> int:
        """0 if the ledger balances."""
        return self.captured - self.delivered - sum(self.dropped.values()) - self.failed

    def check(self) -> None:
        """Raises LedgerError if frames are missing or came twice."""
        if self.unaccounted:
            raise LedgerError(
                f"the ledger does not balance: {self}; {self.unaccounted} frames unaccounted for. "
                "This is a bug in a stage: every frame taken must be passed on"
            )

    def as_dict(self) -> dict[str, Any]:
        """The report's `frames`."""
        out: dict[str, Any] = {
            "captured": self.captured,
            "delivered": self.delivered,
            "dropped": dict(self.dropped),
            "failed": self.failed,
            "lost": dict(self.lost),
            "skipped": dict(self.skipped),
        }
        return out if self.outages is None else {**out, "outages": self.outages.as_dict()}

    def __str__(self) -> str:
        causes = ", ".join(f"{n} {cause}" for cause, n in self.dropped.items())
        text = f"captured {self.captured} = delivered {self.delivered} + dropped "
        text += f"{sum(self.dropped.values())}{f' ({causes})' if causes else ''}"
        text += f" + failed {self.failed}"
        if self.lost:
            text += "; lost " + ", ".join(f"{n} {cause}" for cause, n in self.lost.items())
        if self.skipped:
            text += "; skipped " + ", ".join(f"{n} by {who}" for who, n in self.skipped.items())
        if self.outages is not None and self.outages.count:
            text += f"; {self.outages}"
        return text
