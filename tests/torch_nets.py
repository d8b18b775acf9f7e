"""Networks of the usual families as their users write them in torch, small, and none of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Of ResNet-18."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return functional.relu(y)


class ResNet18(nn.Module):
    """He et al. 2015, `width` channels in its first stage."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(1, 5):
            blocks = nn.Sequential(
                ResidualBlock(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2),
                ResidualBlock(sizes[stage], sizes[stage], 1),
            )
            self.add_module(f"layer{stage}", blocks)
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        x = functional.adaptive_avg_pool2d(x, (1, 1))
        logits: torch.Tensor = self.fc(torch.flatten(x, 1))
        return logits


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1)
        self.fc2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc1(x.mean((2, 3), keepdim=True))
        return x * functional.hardsigmoid(self.fc2(functional.relu(gate)))


class InvertedResidual(nn.Module):
    def __init__(
        self, channels: int, out: int, kernel: int, stride: int, *, excite: bool, act: Any
    ) -> None:
        super().__init__()
        wide = 3 * channels
        layers: list[nn.Module] = [
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            act(inplace=True),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            act(inplace=True),
        ]
        if excite:
            layers.append(SqueezeExcite(wide))
        layers += [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """V2 with ReLU6; V3 with hard-swish and squeeze-and-excite."""

    def __init__(self, *, third: bool) -> None:
        super().__init__()
        act: Any = nn.Hardswish if third else nn.ReLU6
        more: dict[str, Any] = {"excite": third, "act": act}
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            act(inplace=True),
            InvertedResidual(8, 8, 3, 1, **more),
            InvertedResidual(8, 12, 5, 2, **more),
            InvertedResidual(12, 12, 3, 1, **more),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 16), act(), nn.Dropout(0.2), nn.Linear(16, 7)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.pool(self.features(x)))
        return logits


class UNet(nn.Module):
    """Two levels; one comes up by a transposed convolution, one by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self.pair(3, 8), self.pair(8, 16), self.pair(16, 32)
        self.up1, self.after1 = nn.ConvTranspose2d(32, 16, 2, 2), self.pair(32, 16)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.after2, self.head = self.pair(24, 8), nn.Conv2d(8, 3, 1)

    @staticmethod
    def pair(channels: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        y = self.bottom(functional.max_pool2d(second, 2))
        y = self.after1(torch.cat([self.up1(y), second], 1))
        y = self.after2(torch.cat([self.up2(y), first], dim=1))
        mask: torch.Tensor = self.head(y)
        return mask


class TextEncoder(nn.Module):
    """Embeddings, two layers of torch's own encoder, a head on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.positions = nn.Parameter(torch.randn(1, 12, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 4, 32, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 7)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embedding(tokens) + self.positions)
        logits: torch.Tensor = self.head(x[:, 0])
        return logits


class VisionTransformer(nn.Module):
    """One block, with a class token."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, channels))
        self.positions = nn.Parameter(torch.randn(1, 25, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 40), nn.GELU(), nn.Linear(40, channels))
        self.head = nn.Linear(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        batch, count, channels = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, count, 3, 4, channels // 4)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, count, channels))
        logits: torch.Tensor = self.head((x + self.mlp(self.norm2(x)))[:, 0])
        return logits


class Detector(nn.Module):
    """Two scales, and a head that decodes boxes from distributions, as YOLO's later ones do."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1)
        )
        self.split, self.join = nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)
        self.next = nn.Conv2d(16, 16, 3, 2, 1)
        self.heads = nn.ModuleList([nn.Conv2d(16, 16 + classes, 1) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = functional.silu(self.stem(x))
        first, second = self.split(x).chunk(2, 1)
        x = functional.silu(self.join(torch.cat([first, second, functional.silu(second)], 1)))
        low = self.next(x)
        maps = [
            head(m)
            for head, m in zip(
                self.heads, [x + functional.interpolate(low, scale_factor=2.0), low], strict=True
            )
        ]
        flat = torch.cat([m.view(m.shape[0], 16 + self.classes, -1) for m in maps], 2)
        boxes, scores = flat.split((16, self.classes), 1)
        batch, _, count = boxes.shape
        bins = torch.arange(4.0).view(1, 4, 1, 1)
        sides = (boxes.view(batch, 4, 4, count).transpose(2, 1).softmax(1) * bins).sum(1)
        start, end = sides.chunk(2, 1)
        points = torch.cat([self.points(m, step) for m, step in zip(maps, (4, 8), strict=True)], 1)
        upper, lower = points - start * 4, points + end * 4
        boxes = torch.cat([(upper + lower) / 2, lower - upper], 1)
        return {"boxes": boxes, "scores": scores.sigmoid()}

    @staticmethod
    def points(of: torch.Tensor, step: int) -> torch.Tensor:
        rows, columns = torch.meshgrid(
            torch.arange(of.shape[2]) + 0.5, torch.arange(of.shape[3]) + 0.5, indexing="ij"
        )
        return torch.stack([columns, rows]).reshape(2, -1) * step


def settled(module: nn.Module) -> nn.Module:
    """Return a module with statistics in its normalisations, as after training."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()
