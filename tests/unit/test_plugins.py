from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {
    "__init__.py": "",
    "_shared.py": "raise RuntimeError('a shared file is no plugin')",
    "api.py": "raise RuntimeError('not a plugin either')",
    "fast_one.py": '"""Does it fast.\n\nMore."""\nclass FastOne: ...\nclass Other: ...\n',
    "slow.py": "from json import JSONDecoder as Slow\ndef SlowGadget():\n    return 7\n",
    "optional.py": "import a_package_nobody_has\nclass Optional:\n    pass\n",
    "broken.py": "import gadgets_for_test.gone\n",
    "empty.py": "class Something:\n    pass\n",
    "explosive.py": "raise RuntimeError('imported although nobody asked for it')",
}


@pytest.fixture
def gadgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFolder]:
    folder = tmp_path / "gadgets_for_test"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield PluginFolder("gadgets_for_test", "test gadget", not_plugins=("api",))
    for name in [name for name in sys.modules if name.startswith("gadgets_for_test")]:
        del sys.modules[name]


def test_names_are_the_files_and_importing_waits(gadgets: PluginFolder) -> None:
    assert gadgets.names() == ["broken", "empty", "explosive", "fast_one", "optional", "slow"]


def test_entry_is_the_name_of_the_file(gadgets: PluginFolder) -> None:
    assert gadgets.load("fast_one").__name__ == "FastOne"
    assert gadgets.load("fast-one") is gadgets.load("fast_one")


def test_entry_may_end_with_the_noun_and_imported_names_do_not_count(
    gadgets: PluginFolder,
) -> None:
    assert gadgets.load("slow")() == 7


def test_a_new_file_is_a_new_plugin(gadgets: PluginFolder, tmp_path: Path) -> None:
    (tmp_path / "gadgets_for_test" / "brand_new.py").write_text("class BrandNew:\n    pass\n")
    assert "brand_new" in gadgets.names()
    assert gadgets.load("brand_new").__name__ == "BrandNew"


def test_summary_is_read_without_importing(gadgets: PluginFolder) -> None:
    assert gadgets.summary("fast-one") == "Does it fast."
    assert gadgets.summary("explosive") == ""
    assert "gadgets_for_test.fast_one" not in sys.modules


def test_unknown_name_lists_the_known_nearest_first(gadgets: PluginFolder) -> None:
    with pytest.raises(
        ConfigError,
        match=r"'fastone' known; did you mean 'fast_one'. have fast_one, .*gadgets_for_test/",
    ):
        gadgets.load("fastone")


def test_a_missing_package_is_named(gadgets: PluginFolder) -> None:
    with pytest.raises(ConfigError, match="needs the Python package 'a_package_nobody_has'"):
        gadgets.load("optional")


def test_a_mistake_in_our_own_imports_is_not_hidden(gadgets: PluginFolder) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"gadgets_for_test\.gone"):
        gadgets.load("broken")


def test_a_file_without_entry_says_what_it_should_hold(gadgets: PluginFolder) -> None:
    with pytest.raises(ConfigError, match="defines 0 public names that read 'empty'"):
        gadgets.load("empty")


def test_nearest_first() -> None:
    assert nearest_first("mnasnet_pp", ["random_search", "mnasnet_ppo", "evolution"])[0] == (
        "mnasnet_ppo"
    )
