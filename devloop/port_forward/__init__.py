"""Port forwarding: local ports that outlive the pods behind them."""

from __future__ import annotations

from devloop.port_forward.forwarder import PortForwarder
from devloop.port_forward.ports import Dial, Duplex

__all__ = ["Dial", "Duplex", "PortForwarder"]
