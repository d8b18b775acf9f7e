"""Landing on the target, as the device measures it.

The search steers by a latency model. Of the networks that it would take some are measured on the
way, and what they took over what the model said scales the target for the rest of the search. At
the end networks are taken from the band just below the target and measured, each one correcting
the next, until enough of them are in the band on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_agents.api import Failure
from device_agents.errors import TargetError
from device_agents.plural import number_of
from pipeline.search.api import Estimate
from pipeline.search.gradient._derive import derive
from pipeline.search.gradient.api import Found
from pipeline.search.objective import check_target

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pipeline.search.gradient._gates import Vector
    from pipeline.search.gradient.api import Measure
    from pipeline.search.gradient.cells import Cells, LatencyModel

BAND = 0.05
"""A network on target is at most this share faster, and never slower."""
WINDOW = 0.015
"""Half the width, as a share, of where to look in the band: the model's own error comes on top."""
USUAL_HALF_WIDTH = 0.01
"""Of the interval of a measurement, as a share of it, before there is one."""
NEAR_STDERRS = 1.96
RECENT = 3
"""Measurements that the correction is a mean of: probabilities move, and the networks with them."""
TRIES = 8
"""Measurements at the end, on top of two for each network wanted."""

Choices = tuple[int, ...]


@dataclass(slots=True)
class Aim:
    """A target on the device and what is known of the way to it from the model.

    Attributes:
        measured: by choices, in the order of measuring.
    """

    target_ms: float
    cells: Cells
    model: LatencyModel
    measure: Measure | None
    measured: dict[Choices, Estimate | Failure] = field(default_factory=dict)

    @property
    def correction(self) -> float:
        """Measured over modelled latency: geometric mean of the last few networks."""
        logs = [math.log(known.value / self.model.of(c)) for c, known in self._known[-RECENT:]]
        return math.exp(sum(logs) / len(logs)) if logs else 1.0

    @property
    def centre(self) -> float:
        """Where to aim, as a share of the target: the whole interval is to be in the band."""
        widths = [NEAR_STDERRS * known.stderr / known.value for _, known in self._known[-RECENT:]]
        half_width = sum(widths) / len(widths) if widths else USUAL_HALF_WIDTH
        return 1 - (BAND + min(half_width, BAND)) / 2

    @property
    def goal_ms(self) -> float:
        """The expected latency to steer for, by the model."""
        return self.target_ms * self.centre / self.correction

    @property
    def floor_ms(self) -> float:
        """The lower end of the band on the device; 0 where all networks are faster than that."""
        floor_ms = (1 - BAND) * self.target_ms
        return floor_ms if self.correction * self.model.slowest_ms >= floor_ms else 0.0

    @property
    def _known(self) -> list[tuple[Choices, Estimate]]:
        return [(c, found) for c, found in self.measured.items() if isinstance(found, Estimate)]

    def check(self) -> None:
        """Refuse a target below the fastest network; measured if the corrected model says so.

        Raises:
            ConfigError: the target is no latency.
            TargetError: names the fastest network, its latency and how that is known.
        """
        check_target(self.target_ms)
        choices = self.model.fastest()
        if self.correction * self.model.of(choices) > self.target_ms:
            self.look(choices)
            if self._value_ms(choices) > self.target_ms:
                raise self._infeasible()

    def look(self, choices: Choices) -> None:
        """Measure a network, if there is a device and it was not measured before."""
        if self.measure is not None and choices not in self.measured:
            self.measured[choices] = self.measure(self.cells.spec(choices))

    def derive_networks(
        self, log_probabilities: Sequence[Vector], count: int = 1, known: Collection[Choices] = ()
    ) -> list[Choices]:
        """Return the most likely networks in the band that are not `known`, by the corrected model.

        If the band has no such network, those that are faster; if there are none, the fastest one.
        """
        top_ms = self.target_ms / self.correction
        window = (self.centre - WINDOW, self.centre + WINDOW)
        for low, high in (window, (1 - BAND, 1.0), (0.0, 1.0)):
            band_ms = (low * top_ms, high * top_ms)
            found = derive(log_probabilities, self.model, band_ms, count + len(known))
            fresh = [choices for choices in found if choices not in known]
            if fresh:
                return fresh[:count]
        fastest = self.model.fastest()
        return [] if fastest in known else [fastest]

    def land(self, log_probabilities: Sequence[Vector], count: int) -> tuple[Found, ...]:
        """Return up to `count` networks, those on target first, by their probabilities.

        Raises:
            TargetError: none meets the target on the device, the fastest one neither.
        """
        if self.measure is None:
            return tuple(
                self._found(c, log_probabilities)
                for c in self.derive_networks(log_probabilities, count)
            )
        for _ in range(TRIES + 2 * count):
            if sum(self._off(choices) == 0.0 for choices in self.measured) >= count:
                break
            fresh = self.derive_networks(log_probabilities, known=self.measured)
            if not fresh:
                break
            self.look(fresh[0])
        if all(self._off(choices) >= 1.0 for choices in self.measured):
            self.look(self.model.fastest())
        found = sorted(
            (c for c in self.measured if self._off(c) < 1.0),
            key=lambda c: (self._off(c), -_likelihood(c, log_probabilities)),
        )
        if not found:
            raise self._infeasible()
        return tuple(self._found(choices, log_probabilities) for choices in found[:count])

    def _off(self, choices: Choices) -> float:
        """Return 0 in the band, the share below it, or 1 where the target is not met for sure."""
        found = self.measured[choices]
        if isinstance(found, Failure):
            return 1.0
        if found.value + NEAR_STDERRS * found.stderr > self.target_ms:
            return 1.0
        return max(0.0, self.floor_ms - found.value) / self.target_ms

    def _value_ms(self, choices: Choices) -> float:
        found = self.measured.get(choices)
        return found.value if isinstance(found, Estimate) else self.model.of(choices)

    def _found(self, choices: Choices, log_probabilities: Sequence[Vector]) -> Found:
        found = self.measured.get(choices)
        return Found(
            self.cells.spec(choices),
            _likelihood(choices, log_probabilities),
            self.model.of(choices),
            found if isinstance(found, Estimate) else None,
        )

    def _infeasible(self) -> TargetError:
        known = [choices for choices, _ in self._known]
        failures = [found for found in self.measured.values() if isinstance(found, Failure)]
        if failures and not known:
            measured = number_of(len(failures), "network")
            return TargetError(f"{measured} measured and none worked: {failures[0].reason}")
        choices = min(known or [self.model.fastest()], key=self._value_ms)
        how = "by the latency model"
        if isinstance(found := self.measured.get(choices), Estimate):
            how = f"measured on the device, +- {NEAR_STDERRS * found.stderr:.2g} ms"
        if choices == self.model.fastest():
            how += "; the candidate of each cell that is fastest by the latency model"
        return TargetError(
            f"no network of the space meets the target of {self.target_ms:.4g} ms for sure: the "
            f"fastest known, {self.cells.spec(choices)}, takes {self._value_ms(choices):.4g} ms "
            f"({how}); raise the target or offer smaller cells"
        )


def _likelihood(choices: Choices, log_probabilities: Sequence[Vector]) -> float:
    return float(sum(logs[c] for logs, c in zip(log_probabilities, choices, strict=True)))
