"""What became of each picture of a batch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Reconstructed(BaseModel):
    """An object that was reconstructed, and the folder with its files."""

    model_config = ConfigDict(frozen=True)

    image: str
    folder: str
    frame: int | None = None
    #: The crop in the picture: x, y, width and height in pixels; None if the picture was taken as it is.
    box: tuple[float, float, float, float] | None = None
    #: What the detector says it is, and the model that reconstructed it.
    label: str | None = None
    model: str = ""


class Failed(BaseModel):
    """A picture, video or argument that was not, and why."""

    model_config = ConfigDict(frozen=True)

    image: str
    reason: str


class RefinementGain(BaseModel):
    """What refining came to: the loss on these pictures before and after, and whether the result was kept."""

    model_config = ConfigDict(frozen=True)

    steps: int
    loss_before: float
    loss_after: float
    kept: bool


class ReconstructionReport(BaseModel):
    """What ``recon reconstruct --json`` prints."""

    model_config = ConfigDict(frozen=True)

    out: str
    model: str
    contact_sheet: str
    page: str | None
    reconstructed: list[Reconstructed]
    failed: list[Failed]
    refinement: RefinementGain | None = None
    seconds: float
