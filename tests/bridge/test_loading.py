"""`module:object`: what is loaded, and what is said of what cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from coralmux.bridge.apps.loading import app_directory, load, own_line
from coralmux.bridge.backends import BackendUnusable
from tests.bridge.apps import AppFiles
from tests.bridge.apps import apps as apps


async def loaded(apps: AppFiles, app: str) -> Any:
    found, _ = await load(
        app, apps.directory, lambda thing: isinstance(thing, dict), "a dict", "app:thing"
    )
    return found


async def test_an_object_is_loaded_by_its_name(apps: AppFiles) -> None:
    name = apps.write("class Box:\n    inner = {'a': 1}\n")
    assert await loaded(apps, f"{name}:Box.inner") == {"a": 1}


async def test_a_factory_is_called(apps: AppFiles) -> None:
    name = apps.write("def make(size=2):\n    return {'size': size}\n")
    assert await loaded(apps, f"{name}:make") == {"size": 2}


async def test_an_async_factory_is_awaited(apps: AppFiles) -> None:
    name = apps.write("async def make():\n    return {'a': 1}\n")
    assert await loaded(apps, f"{name}:make") == {"a": 1}


async def test_the_apps_directory_comes_first(apps: AppFiles) -> None:
    # `pyclbr` is a module of Python itself, which nothing here imports.
    (apps.directory / "pyclbr.py").write_text("thing = {'mine': True}\n")
    try:
        assert await loaded(apps, "pyclbr:thing") == {"mine": True}
    finally:
        sys.modules.pop("pyclbr", None)


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("", "thing", r"has no 'thing'. It has: nothing\."),
        ("crew = {}", "crw", r"has no 'crw'. It has: crew\."),
        ("import no_such_thing_at_all", "x", r"imports 'no_such_thing_at_all', which is not inst"),
        ("\nraise OSError('the key is missing')", "x", r"OSError: the key is missing\. \(.*line 2"),
        ("raise SystemExit(3)", "x", r"cannot be imported: SystemExit: 3\."),
        ("x = (", "x", r"SyntaxError: .* \(app_\d+\.py, line 1\)"),
        ("x = 3", "x", r"is a builtins\.int\. It has to be a dict\."),
        ("def x(a, b, c=1): pass", "x", r"callable without arguments to make one; it wants a, b\."),
        ("def x(): return 3", "x", r"x\(\) gave a builtins\.int\. It has to be a dict\."),
        ("def x():\n  1 / 0", "x", r"x\(\) failed with ZeroDivisionError: .*line 2\)"),
        ("from app_0 import y", "x", r"imports 'app_0', which is not installed"),
    ],
)
async def test_what_cannot_be_loaded_is_explained(
    apps: AppFiles, source: str, path: str, said: str
) -> None:
    name = apps.write(source)
    with pytest.raises(BackendUnusable, match=said):
        await loaded(apps, f"{name}:{path}")


@pytest.mark.parametrize("app", ["thing", "app.py:thing", "dir/app:thing", "app:", ":thing"])
async def test_a_name_of_another_form_is_answered_with_the_form(apps: AppFiles, app: str) -> None:
    with pytest.raises(BackendUnusable, match="not of the form module:object"):
        await loaded(apps, app)


@pytest.mark.parametrize("module", ["nowhere", "nowhere.inside"])
async def test_a_module_that_is_not_there_is_told_from_one_that_lacks_something(
    apps: AppFiles, module: str
) -> None:
    with pytest.raises(
        BackendUnusable, match=rf"There is no module '{module}' in {apps.directory}"
    ):
        await loaded(apps, f"{module}:thing")


async def test_no_secret_of_ours_stands_in_what_is_said(apps: AppFiles) -> None:
    name = apps.write("raise ValueError('bad link token=abcdefgh&psk=ijklmnop')")
    with pytest.raises(BackendUnusable) as raised:
        await loaded(apps, f"{name}:x")
    assert "abcdefgh" not in str(raised.value)
    assert "ijklmnop" not in str(raised.value)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match="elsewhere does not exist"):
        app_directory(str(tmp_path / "elsewhere"))


def test_the_apps_own_line_is_found_below_those_of_others(apps: AppFiles) -> None:
    name = apps.write("import json\ndef broken():\n    return json.loads('{')\n")
    scope: dict[str, Any] = {}
    path = apps.directory / f"{name}.py"
    exec(compile(path.read_text(), str(path), "exec"), scope)
    with pytest.raises(ValueError, match="Expecting") as raised:
        scope["broken"]()
    assert own_line(raised.value, apps.directory) == f"{name}.py, line 3"
    assert own_line(raised.value, apps.directory / "elsewhere") == ""
