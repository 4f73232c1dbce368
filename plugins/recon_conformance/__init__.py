"""Does a renderer do what the others and the training rely on? Checks against closed forms, with causes named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon_conformance.report import CheckResult, ConformanceReport, Verdict
    from recon_conformance.subject import ProtocolFault
    from recon_conformance.suite import check_renderer

__all__ = ["CheckResult", "ConformanceReport", "ProtocolFault", "Verdict", "check_renderer"]

_HOME = {"ProtocolFault": "subject", "check_renderer": "suite"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'report')}"), name)
