"""Where a renderer's picture lies: mirrored axes, a turn the wrong way, a shift or a scale, found against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recon_toolkit.conformance.subject import Subject, smooth_image
from recon_toolkit.conformance.truth import SIZE, Ellipsoid, canonical_depth, pixel_grid, sight, view_of

#: A view in which every hypothesis below gives another picture.
VIEW = view_of(3, 18, 6, move=(0.004, -0.006, 0.01))

_MIRRORS = {
    "": (1.0, 1.0),
    "left-right": (-1.0, 1.0),
    "upside-down": (1.0, -1.0),
    "left-right and upside-down": (-1.0, -1.0),
}
_TURNS = {
    "": (1, 1, 1, 1, 1, 1),
    "the wrong way about x": (-1, 1, 1, 1, 1, 1),
    "the wrong way about y": (1, -1, 1, 1, 1, 1),
    "the wrong way about z": (1, 1, -1, 1, 1, 1),
    "the wrong way about x and y": (-1, -1, 1, 1, 1, 1),
    "the wrong way about every axis": (-1, -1, -1, 1, 1, 1),
    "the right way but moves the wrong way": (1, 1, 1, -1, -1, -1),
}


@dataclass(frozen=True)
class Registration:
    """Pixel p of the rendering shows what belongs at ``where(p)`` in the view ``turned(view)``.

    Attributes:
        mirror: how the picture is mirrored; empty if it is not.
        turn: how the view is misread; empty if it is not.
        shift: (du, dv) in pixels.
        scale: (su, sv); 1 if right.
        bias: rendered minus true depth that no shift explains.
        spread: standard deviation of what is left.
        covered: share of the pixels that the estimate rests on.
    """

    mirror: str = ""
    turn: str = ""
    shift: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    bias: float = 0.0
    spread: float = 0.0
    covered: float = 0.0

    #: Fewer pixels than this share decide nothing.
    LEAST = 0.05
    #: A shift of this many pixels is none: ten times what the estimate is off by on exact renderers, a tenth of the
    #: classical fault.
    NEGLIGIBLE = 0.05

    @property
    def found(self) -> bool:
        """Whether enough of the object was drawn to tell."""
        return self.covered >= self.LEAST

    @property
    def off_scale(self) -> float:
        """By how many pixels the scale moves the picture's border."""
        return max(abs(s - 1) for s in self.scale) * (SIZE - 1) / 2

    @property
    def right(self) -> bool:
        """No mirror, no turn, no shift, no scale."""
        small = max(*map(abs, self.shift), self.off_scale) <= self.NEGLIGIBLE
        return small and not self.mirror and not self.turn

    def where(self, pixels: Tensor, size: int = SIZE) -> Tensor:
        """(2, N) pixels of the rendering → where what they show belongs; unchanged if the registration is right."""
        if self.right or not self.found:
            return pixels
        middle = (size - 1) / 2
        factor = pixels.new_tensor(_MIRRORS[self.mirror]) * pixels.new_tensor(self.scale)
        return (pixels - middle) * factor[:, None] + middle + pixels.new_tensor(self.shift)[:, None]

    def turned(self, view: Tensor) -> Tensor:
        """The view (6,) that the renderer makes of ``view``."""
        return view * view.new_tensor(_TURNS[self.turn])


def register(subject: Subject) -> Registration:
    """Estimate mirror, turn, shift and scale from one rendering of a smooth cap, by least squares on depth."""
    surface = Ellipsoid()
    depth = canonical_depth(surface)[None].to(subject.best)
    with torch.no_grad():
        found = subject(depth, smooth_image(1, SIZE, subject.best), VIEW[None].to(subject.best))
    drawn, mask = found.depth[0].double().cpu().flatten(), found.mask[0].cpu().flatten()
    mask = mask & drawn.isfinite()
    best, least = Registration(), float("inf")
    for mirror in _MIRRORS:
        for turn in _TURNS:
            guess = Registration(mirror=mirror, turn=turn, covered=1.0)
            error, share = _misfit(surface, guess, drawn, mask)
            # A more complicated story must explain far more: mirrors and turns differ by hundredths of the distance.
            if share >= Registration.LEAST and error < least * (1 if not (mirror or turn) else 0.25):
                best, least = guess, error
    if not best.covered:
        return Registration(covered=float(mask.double().mean()))
    return _refined(surface, best, drawn, mask)


def _misfit(surface: Ellipsoid, guess: Registration, drawn: Tensor, mask: Tensor) -> tuple[float, float]:
    truth = sight(surface, guess.turned(VIEW), guess.where(pixel_grid(SIZE)))
    use = mask & (truth.inside > 3)
    if not use.any():
        return float("inf"), 0.0
    return float((drawn - truth.depth)[use].abs().median()), float(use.double().mean())


def _refined(surface: Ellipsoid, guess: Registration, drawn: Tensor, mask: Tensor) -> Registration:
    """Shift, scale and bias by Gauss–Newton: each step linearises the true depth about the places found so far."""
    pixels, view, middle = pixel_grid(SIZE), guess.turned(VIEW), (SIZE - 1) / 2
    mirror = pixels.new_tensor(_MIRRORS[guess.mirror])[:, None]
    centred = (pixels - middle) * mirror
    shift, scale, bias, spread, share = pixels.new_zeros(2), pixels.new_ones(2), 0.0, 0.0, 0.0
    for _ in range(4):
        places = centred * scale[:, None] + middle + shift[:, None]
        here = sight(surface, view, places)
        step = 0.25
        slopes = [
            (sight(surface, view, places + e).depth - sight(surface, view, places - e).depth) / (2 * step)
            for e in (pixels.new_tensor([[step], [0.0]]), pixels.new_tensor([[0.0], [step]]))
        ]
        use = mask & (here.inside > 3) & slopes[0].isfinite() & slopes[1].isfinite()
        share = float(use.double().mean())
        if share < Registration.LEAST:
            break
        columns = [slopes[0], slopes[1], slopes[0] * centred[0], slopes[1] * centred[1], torch.ones_like(slopes[0])]
        system = torch.stack(columns, dim=1)[use]
        rest = (drawn - here.depth)[use]
        # A few pixels at a border or a hole must not move the estimate of all.
        sound = rest.sub(rest.median()).abs() <= 6 * rest.sub(rest.median()).abs().median() + 1e-12
        answer = torch.linalg.lstsq(system[sound], rest[sound, None]).solution[:, 0]
        shift, scale, bias = shift + answer[:2], scale + answer[2:4], float(answer[4])
        spread = float((rest - system @ answer)[sound].std())
    return Registration(
        mirror=guess.mirror,
        turn=guess.turn,
        shift=(float(shift[0]), float(shift[1])),
        scale=(float(scale[0]), float(scale[1])),
        bias=bias,
        spread=spread,
        covered=share,
    )
