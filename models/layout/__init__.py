"""Brings a network from channels-first into ours, where channels are last.

Readers of channels-first sources put a `transpose` before and after every op that needs its
channels last, and leave all others with the axes of the source. `settle` puts the transposes
together and takes away all that can be: ops that can be computed in any order of axes are computed
in that of their neighbours, constants and the weights of dense layers are rearranged, and what is
left at an input or output becomes the layout that its user has.

labels.py says how a tensor is stored, rule.py what is asked of an op, rules.py which rule it has,
network.py who reads what; choose.py finds the layouts, flat.py is about vectors made of maps,
rebuild.py writes it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.layout.choose import choose
from models.layout.network import network_of
from models.layout.rebuild import rebuild

if TYPE_CHECKING:
    from models.model import Model


def settle(model: Model) -> Model:
    """Return a model that computes the same with as few transposes and reshapes as possible.

    Args:
        model: whose inputs and outputs are laid out as the source has them. Those of three or
            four axes whose layout is said to be "" may come out channels-last: their layout is
            then NCL or NCHW, which is what their user has. Others stay as they are.

    Returns:
        The same function. Ops keep their names; a transpose that is gone has none.
    """
    network = network_of(model)
    choose(network)
    return rebuild(model, network)
