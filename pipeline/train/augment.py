"""Random small rotations, scalings and shifts, whole batches at a time."""

from __future__ import annotations

import torch
from torch.nn import functional


def affine(images: torch.Tensor, generator: torch.Generator, *, strength: float) -> torch.Tensor:
    """Return images (B, C, H, W) each under its own random affine map.

    At strength 1 up to 15 degrees of rotation, 15 % of scale and 15 % of shift each way. Draws are
    made on the processor, so that they are the same wherever the images are.
    """
    count = len(images)
    angle, scale = ((torch.rand(2, count, generator=generator) - 0.5) * strength).unbind()
    angle = angle * 0.52
    scale = 1 + scale * 0.3
    shift = (torch.rand(count, 2, generator=generator) - 0.5) * 0.3 * strength
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = (torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1))
    maps = torch.stack(rows, 1).to(images.device)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
