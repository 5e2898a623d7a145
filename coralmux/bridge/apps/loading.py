"""`module:object`: the app of a framework's, loaded from a file of the user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from coralmux.bridge.backends import BackendUnusable
from coralmux.text import discreet, one_line

_LONGEST_CAUSE = 300


def app_directory(setting: str) -> Path:
    """Where an app is looked for: the setting `directory`, or the current one."""
    place = Path(setting).expanduser().absolute()
    if not place.is_dir():
        raise BackendUnusable(
            f"The directory {place} does not exist. Mend the setting `directory`."
        )
    return place


async def load(
    app: str, place: Path, accepts: Callable[[object], bool], wanted: str, example: str
) -> tuple[Any, Callable[[], Any] | None]:
    """The object that `app` names, and the factory that made it, None where it is no factory.

    A callable that is not itself what `accepts` wants is a factory: it is called without
    arguments, and awaited where it is a coroutine. `place` comes first on the module path.
    `wanted` and `example` say what should have been named.
    Raises BackendUnusable, whose text may quote the app: it is for the operator's eyes.
    """
    module_name, colon, path = app.partition(":")
    if not (colon and module_name and path) or "/" in module_name or module_name.endswith(".py"):
        raise BackendUnusable(
            f"app = {app!r} is not of the form module:object. For the object `crew` in the "
            f"file crew.py of this directory, write {example!r}."
        )
    found = _attribute(_module(module_name, place), path, place)
    if accepts(found):
        return found, None
    if not callable(found):
        raise BackendUnusable(f"{app} is a {_kind(found)}. It has to be {wanted}.")
    if needed := _needed_arguments(found):
        raise BackendUnusable(
            f"{app} has to be {wanted}, or callable without arguments to make one; "
            f"it wants {', '.join(needed)}."
        )
    try:
        made = await call(found)
    except (Exception, SystemExit) as error:
        raise BackendUnusable(
            f"{app}() failed with {_cause(error)}.{_where(error, place)}"
        ) from error
    if not accepts(made):
        raise BackendUnusable(f"{app}() gave a {_kind(made)}. It has to be {wanted}.")
    return made, found


async def call(factory: Callable[[], Any]) -> Any:
    """What a factory gives, awaited where it has to be."""
    made = factory()
    return await made if inspect.isawaitable(made) else made


def _module(name: str, place: Path) -> ModuleType:
    if str(place) not in sys.path[:1]:
        sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if absent and f"{name}.".startswith(f"{absent}."):
            raise BackendUnusable(
                f"There is no module {name!r} in {place}, nor among the installed packages. "
                "Look at the spelling, or start in the directory that has it."
            ) from None
        raise BackendUnusable(
            f"{name} imports {absent!r}, which is not installed here.{_where(error, place)} "
            "Install it beside coralmux-agent."
        ) from error
    except (Exception, SystemExit) as error:
        raise BackendUnusable(
            f"{name} cannot be imported: {_cause(error)}.{_where(error, place)}"
        ) from error


def _attribute(module: ModuleType, path: str, place: Path) -> object:
    found: object = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            there = ", ".join(sorted(n for n in vars(module) if not n.startswith("_"))[:20])
            raise BackendUnusable(
                f"{module.__name__} ({getattr(module, '__file__', place)}) has no {path!r}. "
                f"It has: {there or 'nothing'}."
            ) from None
    return found


def _needed_arguments(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of C: it will tell when it is called
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _kind(found: object) -> str:
    return f"{type(found).__module__}.{type(found).__qualname__}"


def _cause(error: BaseException) -> str:
    text = discreet(one_line(str(error)))[:_LONGEST_CAUSE].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException, place: Path) -> str:
    """The last line of the user's own files on the way to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    found = own_line(error, place)
    return f" ({found})" if found else ""


def own_line(error: BaseException, place: Path) -> str:
    """ "file.py, line 7" for the last of the files in `place` that an error went through; ""."""
    last = ""
    traceback = error.__traceback__
    while traceback is not None:
        file = Path(traceback.tb_frame.f_code.co_filename)
        if place in file.parents and "site-packages" not in file.parts:
            last = f"{file.relative_to(place)}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return last
