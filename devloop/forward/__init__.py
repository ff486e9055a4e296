"""The front door: local ports that outlive the pods behind them."""

from __future__ import annotations

from devloop.forward.door import FrontDoor
from devloop.forward.ports import Dial, Duplex, PodSource

__all__ = ["Dial", "Duplex", "FrontDoor", "PodSource"]
