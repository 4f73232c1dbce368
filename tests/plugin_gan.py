"""A method with a discriminator, as a third party writes it: two optimisers that take turns, public names only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, ImagePair, Losses, Model, ModelOutput, ParameterGroup, Step, model, optimizer


@optimizer("plain-sgd")
def plain_sgd(parameters: list[dict[str, Any]], learning_rate: float, *, momentum: float = 0.9) -> torch.optim.SGD:
    """Stochastic gradient descent."""
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)


@model("toy-gan")
class ToyGan(Model):
    """An autoencoder whose pictures a discriminator is to take for photographs.

    Args:
        critic_steps: updates of the discriminator for each of the generator.
        adversarial: weight of the discriminator's opinion.
    """

    batch_fields = ("image",)

    def __init__(self, image_size: int, *, critic_steps: int = 2, adversarial: float = 0.1) -> None:
        super().__init__()
        self.critic_steps, self.adversarial = critic_steps, adversarial
        self.generator = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.LeakyReLU(0.2), nn.ConvTranspose2d(8, 3, 4, stride=4), nn.Sigmoid()
        )
        self.discriminator = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 1))
        self.looked = 0  # how often forward ran: what looks at a model must not count

    @classmethod
    def image_pairs(cls, **_options: Any) -> tuple[str, ...]:
        return ("plain",)

    def optimizers(self) -> Mapping[str, Sequence[ParameterGroup]]:
        return {
            "discriminator": [ParameterGroup(list(self.discriminator.parameters()), rate=0.5, weight_decay=0.0)],
            "generator": [ParameterGroup(list(self.generator.parameters()), warmup=2)],
        }

    def forward(self, batch: Batch) -> ModelOutput:
        self.looked += 1
        made = self.generator(batch.image)
        return ModelOutput(pairs={"plain": ImagePair(made, batch.image)}, factors={"made": made})

    def training_step(self, batch: Batch, step: Step) -> Iterator[tuple[str, Losses]]:
        for _ in range(self.critic_steps):
            with torch.no_grad():
                made = self.generator(batch.image)
            real, false = self.discriminator(batch.image), self.discriminator(made)
            critic = F.softplus(-real).mean() + F.softplus(false).mean()
            yield "discriminator", Losses(critic, {"critic": critic.detach()})
        output = self(batch)
        losses = step.losses(output, batch)
        fooled = F.softplus(-self.discriminator(output.factors["made"])).mean()
        yield "generator", Losses(losses.total + self.adversarial * fooled, {**losses.terms, "fooled": fooled.detach()})

    @torch.no_grad()
    def scored_pair(self, batch: Batch) -> ImagePair:
        return ImagePair(self.generator(batch.image), batch.image)

    @torch.no_grad()
    def sheet_columns(self, batch: Batch) -> dict[str, Tensor]:
        return {"input": batch.image, "made": self.generator(batch.image)}
