"""A method that looks at several images of one object, as a third party writes it: one code for each group."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recon_toolkit import Batch, ImagePair, Model, ModelOutput, model


@model("toy-several-images")
class SeveralImages(Model):
    """Every image is drawn from what all images of its group have in common, and a small code of its own.

    Args:
        images: of each object.
    """

    batch_fields = ("image", "group")

    def __init__(self, image_size: int, *, images: int = 2) -> None:
        super().__init__()
        self.group_size = images
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.LeakyReLU(0.2))
        self.own = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.LeakyReLU(0.2))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(10, 3, 8, stride=8), nn.Sigmoid())

    @classmethod
    def image_pairs(cls, **_options: Any) -> tuple[str, ...]:
        return ("plain",)

    def forward(self, batch: Batch) -> ModelOutput:
        assert batch.group is not None
        together = batch.group.reshape(-1, self.group_size)
        assert bool((together == together[:, :1]).all()), "images of different objects in one group"
        shared = self.encoder(batch.image)
        shared = shared.unflatten(0, (-1, self.group_size)).mean(1).repeat_interleave(self.group_size, 0)
        made = self.decoder(torch.cat((shared, self.own(batch.image)), 1))
        return ModelOutput(pairs={"plain": ImagePair(made, batch.image)}, factors={"shared": shared})
