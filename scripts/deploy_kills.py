"""Kills hosts and agents in the middle of deployments, and looks at what is left.

    python -m scripts.deploy_kills [--rounds N] [--seed S]

After each kill, and the next contact, the device must be in a good state: what is in use is the old
release or the new one, whole; nothing half done lies about; and the same deployment then succeeds.
The tests run `every_step` and a few rounds of `at_random`; the script runs as many as one likes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.agent import launcher
from device_agents.agent.releases import Releases
from device_agents.agent.store import ModelStore
from device_agents.errors import DeviceError
from device_agents.runner import Device
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "net"
_MODEL = '{"edgewright_null": 1, "latency_ms": %d}'
_ENDING_S = 30.0


class Campaign:
    """One device, this computer, whose release 1 is in use and which is to get release 2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "device"
        self.profile = DeviceProfile(
            name="here", transport="local", directory=str(self.directory), runtime="null"
        )
        self.files = {}
        for version in (1, 2):
            path = folder / f"model-{version}.json"
            path.write_text(_MODEL % version)
            self.files[str(version)] = path

    def deploy(self, version: str) -> None:
        """Deploy over the whole way, from host to agent."""
        with Device.open(self.profile) as device:
            device.releases.deploy(self.files[version], NAME, version, check=lambda run: run([]))

    def deploy_in_agent(self, version: str) -> None:
        """Do what an agent does for a deployment, in this process."""
        store = ModelStore(str(self.directory))
        releases = Releases(store)
        content = self.files[version].read_bytes()
        sent = store.incoming / "sent"
        sent.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        store.accept(sha256, str(sent), 1 << 30)
        releases.stage(sha256, NAME, version, "json")
        releases.staged_path(NAME, version)
        releases.activate(NAME, version)
        store.close()

    def check(self) -> str:
        """Make the next contact and look; return the version in use. Raises AssertionError."""
        store = ModelStore(str(self.directory))
        releases = Releases(store)
        used = [item["version"] for item in releases.list() if item["current"]]
        _require(len(used) == 1, f"in use are {used}")
        content = releases.path(NAME, used[0]).read_bytes()
        _require(content == self.files[used[0]].read_bytes(), f"release {used[0]} is damaged")
        current = self.directory / "deployed" / NAME / "current" / "model.json"
        _require(current.read_bytes() == content, "`current` leads elsewhere")
        store.close()
        left = [
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if launcher.PART in path.name or path.name.endswith(".part")
        ]
        _require(not left, f"half done are {left}")
        return str(used[0])

    def again(self) -> None:
        """Deploy release 2 after all, and go back to 1 for the next round."""
        self.deploy_in_agent("2")
        _require(self.check() == "2", "the same deployment did not succeed afterwards")
        store = ModelStore(str(self.directory))
        _require(Releases(store).rollback(NAME, None)["current"] == "1", "no way back to 1")
        store.close()


def every_step(folder: Path) -> int:
    """Kill an agent before each of its acts on the disk; return how many there were."""
    campaign = Campaign(folder)
    campaign.deploy_in_agent("1")
    for step in range(1, 1000):
        if not _killed(lambda at=step: _die_at_act(campaign, at)):  # type: ignore[misc]
            return step - 1
        campaign.check()
        # What has arrived before the kill is not sent again, so each round begins alike.
        for path in (campaign.directory / "models").iterdir():
            path.unlink()
        campaign.again()
        launcher.remove(campaign.directory / "deployed" / NAME / "2")
    raise AssertionError("a deployment takes more than 1000 acts")


def at_random(folder: Path, rounds: int, rng: random.Random) -> dict[str, int]:
    """Kill hosts or agents at random moments; return how often which release was in use after."""
    campaign = Campaign(folder)
    begun = time.monotonic()
    campaign.deploy("1")
    # So that kills hit its whole length, however busy this computer is.
    latest_s = time.monotonic() - begun
    found = {"1": 0, "2": 0, "not hit": 0}
    for _ in range(rounds):
        after_s, whole = rng.uniform(0.0, latest_s), rng.random() < 0.5
        if not _killed(lambda: campaign.deploy("2"), after_s=after_s, whole_group=whole):
            found["not hit"] += 1
        found[campaign.check()] += 1
        campaign.again()
        launcher.remove(campaign.directory / "deployed" / NAME / "2")
    return found


def _die_at_act(campaign: Campaign, step: int) -> None:
    acts, left = ("open", "os.", "shutil."), [step]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        inside = any(isinstance(a, (str, Path)) and "device" in str(a) for a in args)
        if event.startswith(acts) and inside:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    campaign.deploy_in_agent("2")


def _killed(work: Callable[[], None], *, after_s: float = 60.0, whole_group: bool = False) -> bool:
    """Do it in a process; tell whether that was killed, by itself or here, before its end.

    `whole_group`: the agents that it has started, too, at the same moment.
    """
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setpgid(0, 0)
            work()
            code = 0
        except DeviceError as error:
            os.write(2, f"deploy_kills: {error}\n".encode())
        finally:
            os._exit(code)
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _require(status in (0, signal.SIGKILL), f"it ended with status {status}")
            return status != 0
        time.sleep(0.002)
    agents = _children(pid)
    for target in (pid, *(agents if whole_group else ())):
        os.kill(target, signal.SIGKILL)
    os.waitpid(pid, 0)
    # An agent whose host has gone ends by itself, and what is half done is its own until then.
    while any(map(_runs, agents)):
        _require(time.monotonic() < deadline + _ENDING_S, "the agent outlives its host")
        time.sleep(0.002)
    return True


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _require(good: bool, sentence: str) -> None:  # noqa: FBT001
    if not good:
        raise AssertionError(sentence)


def main() -> int:
    """Run the campaigns and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=200, help="random kills (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-kills-") as name:
        for part in ("steps", "random"):
            (Path(name) / part).mkdir()
        print(f"killed before each of {every_step(Path(name) / 'steps')} acts: always good")
        rng = random.Random(options.seed)  # noqa: S311
        found = at_random(Path(name) / "random", options.rounds, rng)
        print(f"killed {options.rounds} times at random moments: {found}, always good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
