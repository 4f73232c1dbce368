"""Does a renderer do what the others and the training rely on? Checks against closed forms, with causes named."""

from recon_toolkit.conformance.report import CheckResult, ConformanceReport, Verdict
from recon_toolkit.conformance.subject import ProtocolFault
from recon_toolkit.conformance.suite import check_renderer

__all__ = ["CheckResult", "ConformanceReport", "ProtocolFault", "Verdict", "check_renderer"]
