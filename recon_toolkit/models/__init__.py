"""What a method is to the rest of the toolkit, and what methods share."""

from recon_toolkit.models.health import Finding, Remedies, shape_findings, sigma_findings
from recon_toolkit.models.model import Model, ParameterGroup, Step
from recon_toolkit.models.photo_geometric import Canonical, Lit, PhotoGeometric

__all__ = [
    "Canonical",
    "Finding",
    "Lit",
    "Model",
    "ParameterGroup",
    "PhotoGeometric",
    "Remedies",
    "Step",
    "shape_findings",
    "sigma_findings",
]
