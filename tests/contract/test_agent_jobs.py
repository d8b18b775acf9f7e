"""What every job of the agent promises, asked of real agents; a new file is tested too."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent import jobs, model_job
from device_agents.agent.arguments import OF_EVERY_CALL, Argument, check
from device_agents.errors import AgentError
from profiles.schema import DeviceProfile
from tests import lab
from tests.sessions import open_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.session import Session

# What each kind of argument may be, and what it is not.
RIGHT = {"text": "x", "number": 0.1, "integer": 1, "list": [], "flag": True, "object": {}}
WRONG = {"text": 5, "number": "5", "integer": 0.5, "list": {}, "flag": 1, "object": []}
# These need more than one call, a file that was sent or a release that was staged; or a runtime
# with a profiler, which null has not.
REFUSED = ("activate", "profile", "put", "rollback", "unpack")


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    with lab.deadline(60):
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Session]]:
    """Return a maker of sessions with an agent on this machine, by its flags."""
    folder = tmp_path_factory.mktemp("device")
    profile = DeviceProfile("here", transport="local", directory=str(folder), runtime="null")
    with open_sessions() as make:
        yield lambda *flags: make(profile, *flags)


@pytest.fixture(scope="module")
def session(make: Callable[..., Session]) -> Session:
    return make()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "null.json"
    path.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 1.0}))
    return path


@pytest.fixture(params=jobs.names())
def op(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def declared(op: str) -> dict[str, Argument]:
    found: dict[str, Argument] = jobs.module(op).ARGUMENTS
    return found


def call_of(op: str, sha256: str) -> dict[str, Any]:
    """Return a call with all that is required, and the null model wherever a model may be given."""
    known = {"runtime": "null", "deadline_s": 20.0}
    return {
        name: sha256 if name.endswith("sha256") else known.get(name, RIGHT[argument.kind])
        for name, argument in declared(op).items()
        if argument.required or name.endswith("sha256")
    }


def refuse(session: Session, op: str, **args: Any) -> str:
    with pytest.raises(AgentError) as caught:
        session.call(op, timeout_s=20, **args)
    assert caught.value.kind == "bad_request"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_says_what_it_is_and_takes(op: str) -> None:
    job = jobs.module(op)
    assert ast.get_docstring(ast.parse(Path(job.__file__).read_text())).partition("\n")[0]
    assert callable(job.answer)
    assert not set(job.ARGUMENTS) & set(OF_EVERY_CALL)
    loads_a_model = set(model_job.ARGUMENTS) <= set(job.ARGUMENTS)
    # Work in a child has a deadline; loading a model is always such work.
    assert ("deadline_s" in job.ARGUMENTS) == hasattr(job, "work")
    assert hasattr(job, "work") or not loads_a_model
    # A default is of its own kind.
    values = check(op, call_of(op, "x"), job.ARGUMENTS)
    assert check(op, values, job.ARGUMENTS) == values


def test_refuses_an_unknown_argument_and_names_the_known(session: Session, op: str) -> None:
    said = refuse(session, op, sparkle=1)
    assert f"{op} takes no argument 'sparkle'; it takes " in said
    assert all(name in said for name in declared(op))


def test_refuses_a_call_without_a_required_argument(session: Session, op: str) -> None:
    whole = call_of(op, "x")
    for name, argument in declared(op).items():
        if argument.required:
            rest = {key: value for key, value in whole.items() if key != name}
            assert f"argument {name} is missing" in refuse(session, op, **rest)


def test_refuses_an_argument_of_another_kind(session: Session, op: str) -> None:
    for name, argument in {**declared(op), **OF_EVERY_CALL}.items():
        value = WRONG[argument.kind]
        said = refuse(session, op, **{**call_of(op, "x"), name: value})
        assert f"argument {name} = {value!r} is not a" in said


@pytest.mark.parametrize("flags", [(), ("--no-fork",)])
def test_answers_in_json(
    make: Callable[..., Session], model: Path, op: str, flags: tuple[str, ...]
) -> None:
    session = make(*flags)
    args = call_of(op, session.push(model))
    if op in REFUSED:
        refuse(session, op, **args)
        return
    result = session.call(op, timeout_s=30, **args)
    assert json.loads(json.dumps(result)) == result
    if hasattr(jobs.module(op), "work"):
        # As over a link that may be lost: the job is detached, under a supervisor.
        again = session.call(op, timeout_s=30, **args, id="a" * 32, rejoin_s=5.0)
        assert set(again) == set(result)
    session.close()
