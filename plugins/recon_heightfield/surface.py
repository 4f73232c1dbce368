"""The canonical depth map as a surface: its inverse depth, bilinear between pixels, and bounds of it over windows.

Along a line in space the inverse depth is linear in image coordinates. Interpolating 1 / D therefore makes planes of
any slant exact, as perspective-correct interpolation does, and the difference of ray and surface within a cell is a
quadratic polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Depths outside this range are not drawn, as for the core's rasteriser.
NEAR, FAR = 1e-3, 100.0


@dataclass(frozen=True)
class Samples:
    """The surface at N places: value and slopes of the inverse depth, and where in which cell they were read."""

    value: Tensor  # [N]
    slope_u: Tensor  # [N] per pixel
    slope_v: Tensor  # [N]
    cell: Tensor  # [N] int32 or int64, a row of Surface.cells
    right: Tensor  # [N] position in the cell, 0 to 1
    down: Tensor  # [N]


class Surface:
    """Inverse depth of B maps, to be read at any place of the pixel grid.

    Args:
        depth: (B, H, W); pixels that are not within NEAR..FAR are holes, and so are the cells that they touch.
    """

    def __init__(self, depth: Tensor) -> None:
        self.batch, self.height, self.width = depth.shape
        self.inverse = torch.where((depth > NEAR) & (depth < FAR), 1 / depth, torch.nan)
        a, b = self.inverse[:, :-1, :-1], self.inverse[:, :-1, 1:]
        c, d = self.inverse[:, 1:, :-1], self.inverse[:, 1:, 1:]
        #: (B (H−1) (W−1), 4): value at the upper left, slopes along u and v, and their product's coefficient.
        self.cells = torch.stack((a, b - a, c - a, d - c - b + a), dim=-1).reshape(-1, 4)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The inverse depth (B, H, W) twice, with numbers in its holes that change no maximum and no minimum."""
        return self.inverse.nan_to_num(nan=1 / FAR), self.inverse.nan_to_num(nan=1 / NEAR)

    def cell_of(self, u: Tensor, v: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cell (N) and position in it (N), (N), of pixel coordinates (N); places outside count as on the border."""
        u, v = u.clamp(0, self.width - 1), v.clamp(0, self.height - 1)
        column, row = u.floor().clamp_(max=self.width - 2), v.floor().clamp_(max=self.height - 2)
        cell = image * ((self.height - 1) * (self.width - 1))
        cell += row.to(cell.dtype).mul_(self.width - 1)
        cell += column.to(cell.dtype)
        return cell, u.sub_(column), v.sub_(row)

    def value(self, u: Tensor, v: Tensor, image: Tensor) -> Tensor:
        """Inverse depth (N) at pixel coordinates (N), (N) of the maps ``image`` (N); NaN in holes."""
        cell, right, down = self.cell_of(u, v, image)
        base, along, across, twist = self.cells.index_select(0, cell).unbind(1)
        return torch.addcmul(base, right, along).addcmul_(torch.addcmul(across, right, twist), down)

    def samples(self, u: Tensor, v: Tensor, image: Tensor) -> Samples:
        """The same with slopes."""
        cell, right, down = self.cell_of(u, v, image)
        base, along, across, twist = self.cells.index_select(0, cell).unbind(1)
        slope_u, slope_v = torch.addcmul(along, down, twist), torch.addcmul(across, right, twist)
        value = torch.addcmul(base, right, along).addcmul_(slope_v, down)
        return Samples(value, slope_u, slope_v, cell, right, down)


class Bounds:
    """Largest and smallest inverse depth over square windows of 1, 2, 4, ... pixels at any place (a sparse table)."""

    def __init__(self, surface: Surface) -> None:
        self.height, self.width = surface.height, surface.width
        inverse = surface.inverse
        largest, smallest = surface.extremes()
        levels = [torch.stack((largest, -smallest), dim=-1)]
        size = 1
        while size < max(self.height, self.width):
            levels.append(_doubled(levels[-1], size))
            size *= 2
        self.level_size = inverse.numel()
        self.table = torch.stack(levels).reshape(-1, 2)

    def over(
        self, first_u: Tensor, last_u: Tensor, first_v: Tensor, last_v: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Largest and smallest (N), (N) over all cells that a box of pixel coordinates touches."""
        left = first_u.clamp(0, self.width - 2).floor_()
        top = first_v.clamp(0, self.height - 2).floor_()
        columns = last_u.clamp(0, self.width - 2).floor_().sub_(left)
        rows = last_v.clamp(0, self.height - 2).floor_().sub_(top)
        # Cells from column i to column j have the vertices i to j + 1: the window has j − i + 2 of them or more.
        level = torch.maximum(columns, rows).add_(1.5).log2_().ceil_()
        index = image * (self.height * self.width)
        index += top.to(index.dtype).mul_(self.width)
        index += left.to(index.dtype)
        index += level.to(index.dtype).mul_(self.level_size)
        largest, smallest = self.table.index_select(0, index).unbind(1)
        return largest, -smallest


def _doubled(level: Tensor, size: int) -> Tensor:
    """Maxima over windows of twice the size (B, H, W, 2); windows are cut off at the lower and right border."""
    level = torch.cat((torch.maximum(level[:, :, :-size], level[:, :, size:]), level[:, :, -size:]), dim=2)
    return torch.cat((torch.maximum(level[:, :-size], level[:, size:]), level[:, -size:]), dim=1)
