"""Finding backends by name, and what is said of those that cannot be had."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from coralmux.bridge import Backend, Place, backends
from coralmux.bridge.backends import BackendUnusable, find, make, names


def test_an_unknown_backend_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(BackendUnusable, match=r"no backend 'ollama'.*echo.*openai"):
        find("ollama")


def test_a_setting_that_a_backend_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match=r"\[echo\] has no setting 'modle'"):
        make("echo", {"modle": "x"}, Place(tmp_path))


def entry(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = metadata.EntryPoint("parrot", value, backends.GROUP)
    real = metadata.entry_points

    def entry_points(**wanted: str) -> metadata.EntryPoints:
        return metadata.EntryPoints([*real(group=wanted["group"]), point]).select(**wanted)

    monkeypatch.setattr(metadata, "entry_points", entry_points)


@pytest.mark.parametrize(
    ("name", "keeps"),
    [
        ("autogen", "its teams' conversations, until the agent is started anew"),
        ("autogpt", "the server's tasks"),
        ("command", ""),
        ("langchain", "the threads of a checkpointer or a LangGraph server"),
        ("openai", ""),
        ("openclaw", "the gateway's sessions"),
    ],
)
def test_a_backend_says_what_it_keeps_where_forgetting_does_not_reach(
    name: str, keeps: str
) -> None:
    assert find(name).keeps == keeps


class Parrot(Backend):
    needs = ("a_module_that_nobody_has.inside",)
    install = ("parrot[all]",)


def test_a_backend_of_somebody_else_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry(monkeypatch, f"{__name__}:Parrot")
    assert "parrot" in names()
    assert find("parrot") is Parrot


def test_a_backend_that_lacks_something_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry(monkeypatch, f"{__name__}:Parrot")
    with pytest.raises(BackendUnusable, match=r"Type: pip install 'parrot\[all\]'"):
        make("parrot", {}, Place(tmp_path))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("pathlib:Path", "is no coralmux.bridge.Backend"),
        ("nowhere_at_all:X", "cannot be loaded: No module named 'nowhere_at_all'"),
        (f"{__name__}:Parot", r"cannot be loaded \(AttributeError\)"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_explained(
    monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    entry(monkeypatch, value)
    with pytest.raises(BackendUnusable, match=why):
        find("parrot")


class Clumsy(Backend):
    """Fails as it is made, with what it was given in the error's text."""

    failure: BaseException

    def __init__(self, settings: object, place: Place) -> None:
        super().__init__(settings, place)
        raise self.failure


def test_a_backend_whose_module_fails_is_explained_without_the_error_s_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "failing_parrot.py").write_text('raise ValueError("sk-what-nobody-may-read")\n')
    monkeypatch.syspath_prepend(tmp_path)
    entry(monkeypatch, "failing_parrot:Parrot")
    with pytest.raises(BackendUnusable, match=r"cannot be loaded \(ValueError\)") as caught:
        find("parrot")
    assert whole(caught.value) == str(caught.value)


def test_a_backend_that_fails_as_it_is_made_is_explained_without_the_error_s_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry(monkeypatch, f"{__name__}:Clumsy")
    monkeypatch.setattr(Clumsy, "failure", KeyError("sk-what-nobody-may-read"), raising=False)
    with pytest.raises(BackendUnusable, match=r"cannot be made \(KeyError\)") as caught:
        make("parrot", {}, Place(tmp_path))
    assert whole(caught.value) == str(caught.value)


def test_a_backend_that_says_itself_why_it_cannot_be_made_is_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry(monkeypatch, f"{__name__}:Clumsy")
    monkeypatch.setattr(Clumsy, "failure", BackendUnusable("Set beak."), raising=False)
    with pytest.raises(BackendUnusable, match=r"^Set beak\.$"):
        make("parrot", {}, Place(tmp_path))


def whole(error: BaseException) -> str:
    """Its text, with those of the errors that a traceback would show."""
    shown, found = "", error
    while found is not None:
        shown, found = (
            shown + str(found),
            found.__cause__ or (None if found.__suppress_context__ else found.__context__),
        )
    return shown
