"""What the sink's thread and the server share: the newest picture, who watches, what is wished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.card import Card
from pipeline.frame import Frame
from pipeline.sinks.web.hub import Newest, PacketFeed
from pipeline.stages.look import Controls


@dataclass
class Live:
    """One side replaces a field, the other reads it; nobody waits."""

    card: Card
    controls: Controls
    jpegs: Newest = field(default_factory=Newest)
    events: Newest = field(default_factory=Newest)
    feed: PacketFeed = field(default_factory=PacketFeed)
    newest: Frame | None = None
    """The frame that came last; only who shows its picture asks for that."""
    shares: dict[int, float] = field(default_factory=dict)
    """What part of a recent picture each class covers, 0..1, of those that occur."""

    def viewers(self) -> dict[str, int]:
        return {"webrtc": self.feed.viewers, "mjpeg": self.jpegs.viewers}

    def look(self) -> dict[str, Any]:
        """The look as the page has it, with every painted class by its id."""
        look = self.controls.look
        painted = look.classes
        if painted is None:
            count = len(self.card.classes)
            painted = tuple(i for i in range(count) if i != self.card.background)
        return {
            "overlay": look.overlay,
            "classes": sorted(painted),
            "legend": look.legend,
            "contours": look.contours,
        }

    def classes(self) -> list[dict[str, Any]]:
        """Id, name and colour of each class."""
        return [
            {"id": i, "name": name, "color": "#" + bytes(self.card.colors[i]).hex()}
            for i, name in enumerate(self.card.classes)
        ]
