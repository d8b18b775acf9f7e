"""Which channels of a network belong together, and the network with fewer of them. No torch.

What a layer gives for a channel is read by others: to cut it is to cut what it takes there as
well, and to cut one side of a residual is to cut the other. Here every channel that a layer makes
is followed through the ops (`follow`) by a rule for each kind of op (`rules`), and those that can
only be cut together are made one. Of these, the ones that lie in the same tensors are a group: any
of a group can be cut in place of any other (`cut`).

What a rule cannot follow pins its channels: they stay, and `Channels.pinned` says why.

The idea is DepGraph's (Fang et al. 2023); it follows layers there, and single channels here, so
that concatenations, splits and reshapes need no rules of their own.
"""

from models.channels.cut import cut
from models.channels.follow import Channels, Group, Pinned, follow
from models.channels.scale import find_scalable, scale_channels
from models.channels.walk import Along

__all__ = [
    "Along",
    "Channels",
    "Group",
    "Pinned",
    "cut",
    "find_scalable",
    "follow",
    "scale_channels",
]
