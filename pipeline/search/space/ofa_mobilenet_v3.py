"""Once-for-all over MobileNetV3: elastic depth, expansion, kernel and resolution.

The decisions are those of `once_for_all`; the skeleton is `OFAMobileNetV3` of
mit-han-lab/once-for-all. With `width` 1.2 it is that of the released network. At each resolution
there are (9^2 + 9^3 + 9^4)^5 = 2.2e19 networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.search.space.once_for_all import OnceForAllSpace
from pipeline.search.space.stages import ElasticSkeleton, ElasticStage


@dataclass(frozen=True)
class OfaMobileNetV3Space(OnceForAllSpace):
    """MobileNetV3's stem, activations, squeeze-and-excite and cheap last stage."""

    name: ClassVar[str] = "ofa_mobilenet_v3"
    large: ClassVar[ElasticSkeleton] = ElasticSkeleton(
        stem=(3, 2, 16),
        first=16,
        stages=(
            ElasticStage(2, 24, "relu"),
            ElasticStage(2, 40, "relu", se=True),
            ElasticStage(2, 80, "hardswish"),
            ElasticStage(1, 112, "hardswish", se=True),
            ElasticStage(2, 160, "hardswish", se=True),
        ),
        head=960,
        feature_mix=1280,
        act="hardswish",
        first_act="relu",
    )
    small: ClassVar[ElasticSkeleton] = ElasticSkeleton(
        stem=(3, 1, 16),
        first=16,
        stages=(
            ElasticStage(2, 24, "relu"),
            ElasticStage(2, 32, "relu", se=True),
            ElasticStage(1, 48, "hardswish", se=True),
            ElasticStage(2, 64, "hardswish", se=True),
        ),
        head=160,
        feature_mix=256,
        act="hardswish",
        first_act="relu",
    )
