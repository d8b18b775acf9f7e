"""Once-for-all over ProxylessNAS: elastic depth, expansion, kernel and resolution.

The decisions are those of `once_for_all`; the skeleton is `OFAProxylessNASNets` of
mit-han-lab/once-for-all, plain ReLU6 without squeeze-and-excite, so int8 runtimes fuse all of it.
With `width` 1.3 it is that of the released network. Its last stage always has one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.search.space.once_for_all import OnceForAllSpace
from pipeline.search.space.stages import ElasticSkeleton, ElasticStage


@dataclass(frozen=True)
class OfaProxylessSpace(OnceForAllSpace):
    """ProxylessNAS' stem, stages and head, with expansion and depth as Once-for-all has them."""

    name: ClassVar[str] = "ofa_proxyless"
    large: ClassVar[ElasticSkeleton] = ElasticSkeleton(
        stem=(3, 2, 32),
        first=16,
        stages=(
            ElasticStage(2, 24),
            ElasticStage(2, 40),
            ElasticStage(2, 80),
            ElasticStage(1, 96),
            ElasticStage(2, 192),
            ElasticStage(1, 320, depths=(1,)),
        ),
        head=1280,
        feature_mix=0,
        act="relu6",
        first_act="relu6",
    )
    small: ClassVar[ElasticSkeleton] = ElasticSkeleton(
        stem=(3, 1, 16),
        first=16,
        stages=(
            ElasticStage(2, 24),
            ElasticStage(2, 32),
            ElasticStage(1, 48),
            ElasticStage(2, 64),
        ),
        head=128,
        feature_mix=0,
        act="relu6",
        first_act="relu6",
    )
