"""What `edgewright lut` measures: a table of a recipe's space, or of one that is named alone.

Without a recipe there is no data either: a space, an input size and a number of classes are all
that a table needs. Its run is then known by those.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from device_agents.errors import ConfigError
from pipeline.cli.display import Display
from pipeline.cli.options import require_format
from pipeline.data import load_data
from pipeline.measure.bench import choose_protocol
from pipeline.measure.form import Form
from pipeline.measure.reference import ZooNet, measure_reference
from pipeline.measure.timer import Timer
from pipeline.run.opening import open_run, set_up
from pipeline.search.stage import create_space
from pipeline.store import Store
from pipeline.store.leases import open_leases
from profiles.registry import load_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.number_format import NumberFormat
    from models.spec import ArchSpec
    from pipeline.measure.bench import DeviceBench
    from pipeline.recipe.recipe import Recipe
    from pipeline.recipe.sections import DeviceSection
    from pipeline.run.opening import OpenRun, Plan
    from pipeline.search.api import SearchSpace

REFERENCE, REFERENCE_WIDTH = "mobilenet-v2", 0.35
"""What is timed beside everything where no recipe names a baseline."""


@dataclass(frozen=True, slots=True)
class TableOrder:
    """A table to be measured; without a recipe it is itself the plan of its run.

    Attributes:
        space: name of the search space; `options` are its own.
        size: of the images: (height, width, channels).
        number_format: of the ops.
        device: where, and how carefully.
        reference: name and width of the zoo net that everything is timed beside.
        seed: of the networks that are measured whole.
        for_supernet: its networks are of a supernet, which heeds no device's likes.
        recipe: whose run it is measured in, if it is a recipe's.
    """

    space: str
    options: Mapping[str, Any]
    size: tuple[int, int, int]
    classes: int
    number_format: NumberFormat
    device: DeviceSection
    reference: tuple[str, float] = (REFERENCE, REFERENCE_WIDTH)
    seed: int = 0
    for_supernet: bool = False
    recipe: Recipe | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return the order for a recipe's table. Raises ConfigError: no [search], no such data."""
        section = recipe.need_search("lut build --recipe")
        dataset = load_data(recipe.need_data("lut build --recipe"), seed=recipe.seed).dataset
        target = recipe.target
        own = (REFERENCE, REFERENCE_WIDTH)
        return cls(
            space=section.space,
            options=section.space_options,
            size=dataset.input,
            classes=dataset.classes,
            number_format=recipe.quantize.number_format,
            device=recipe.device,
            reference=own if target is None else (target.baseline, min(target.widths)),
            seed=recipe.seed,
            for_supernet=section.accuracy != "proxy",
            recipe=recipe,
        )

    @property
    def name(self) -> str:
        """What its run is called."""
        return f"lut-{self.space}"

    @property
    def plan(self) -> Plan:
        """By what its run is known."""
        return self if self.recipe is None else self.recipe

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, to be kept with the run."""
        values = {key: getattr(self, key) for key in ("space", "options", "size", "classes")}
        plain = {
            "name": self.name,
            "seed": self.seed,
            "table": {**values, "reference": self.reference},
            "quantize": {"scheme": str(self.number_format)},
            "device": asdict(self.device),
        }
        found: dict[str, Any] = json.loads(json.dumps(plain))
        return found

    def digest(self) -> str:
        """Return a 16-digit hash of all that."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def create_space(self, channel_multiple: int) -> SearchSpace[ArchSpec]:
        """Return the space, for a device that likes such channel counts. Raises ConfigError."""
        return create_space(
            self.space,
            self.options,
            size=self.size,
            classes=self.classes,
            channel_multiple=None if self.for_supernet else channel_multiple,
        )

    def open_timer(self, held: OpenRun) -> Timer:
        """Measure the reference on the run's device; return what times beside it."""
        bench: DeviceBench = held.bench
        form = Form(bench.profile.runtime, self.number_format)
        beside = measure_reference(
            bench,
            ZooNet(*self.reference, self.size, self.classes),
            form=form,
            protocol=choose_protocol(self.device.protocol),
            folder=held.folder,
        )
        return Timer(bench, form, beside)


@contextmanager
def open_bench(
    order: TableOrder, store: str | None, *, fresh: bool, priority: int
) -> Iterator[OpenRun]:
    """Open the order's device and take up its run: the last one of its plan unless `fresh`.

    Raises:
        ConfigError: the device has no agent.
        DeviceError: it cannot be reached.
    """
    profile = load_device(order.device.name)
    require_format(profile, "lut", runtime=order.device.runtime or profile.runtime)
    profiles = [set_up(profile, order.device)]
    with (
        Store.open(store) as opened,
        open_leases(store, purpose=f"lut {order.space}", priority=priority) as leases,
        Display() as display,
        open_run(
            order.plan, profiles, store=opened, leases=leases, events=display, fresh=fresh
        ) as held,
    ):
        yield held


def parse_size(text: str) -> tuple[int, int, int]:
    """Read 32x32x1 as (height, width, channels). Raises ConfigError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--input {text!r} is no size; write height, width, channels as 32x32x1")
    height, width, channels = map(int, parts)
    return height, width, channels
