"""Which ops XNNPACK's delegate takes, by the rules of LiteRT 2.3 (VisitNode of its delegate).

A rule looks at one op and its tensors as the file holds them, as the delegate does before anything
is prepared, and says in a clause why the op stays with LiteRT's own kernels. The tests of
partitions hold the rules against the runtime, op by op.
"""

from __future__ import annotations
