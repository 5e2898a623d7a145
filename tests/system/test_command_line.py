"""`coralmux-relay` as an operator types it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from coralmux import __version__
from tests.support.process import ADMIN_KEY, RelayProcess, clean_environment, relay_process

# Each test starts a relay of its own, or several.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    state = {"CORALMUX_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "coralmux_site.cli", *arguments],
        env=clean_environment(**{**state, **env}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(tmp_path: Path, *arguments: str, **env: str) -> RelayProcess:
    """A relay with these arguments and no admin key but what they give it."""
    command = [sys.executable, "-m", "coralmux_site.cli", *arguments]
    relay = RelayProcess(tmp_path, command=command)
    del relay.env["CORALMUX_ADMIN_KEY"]
    relay.env.update(env)
    return relay


@pytest.mark.parametrize("dash", ["-", "--"])
def test_the_authors_own_line_works_with_one_dash_and_with_two(tmp_path: Path, dash: str) -> None:
    relay = start(tmp_path, f"{dash}addr", ":{port}", f"{dash}admin-key", ADMIN_KEY)
    try:
        relay.start()
        assert relay.token().startswith("oc_pair_")
        assert f"http://localhost:{relay.port}" in relay.output
    finally:
        relay.stop()


def test_every_address_means_ipv6_too(tmp_path: Path) -> None:
    import urllib.request

    relay = start(tmp_path, "-addr", ":{port}")
    try:
        relay.start()
        with urllib.request.urlopen(f"http://[::1]:{relay.port}/health", timeout=10) as answer:
            assert answer.status == 200
    finally:
        relay.stop()


@pytest.mark.parametrize("name", ["RELAY_ADMIN_KEY", "CORALMUX_ADMIN_KEY"])
def test_the_admin_key_comes_by_environment_too(tmp_path: Path, name: str) -> None:
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}", **{name: ADMIN_KEY})
    try:
        assert relay.start().http("POST", "/api/v1/pair", admin=True)[0] == 201
    finally:
        relay.stop()


def test_the_admin_key_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(ADMIN_KEY + "\n")
    key_file = {"CORALMUX_ADMIN_KEY_FILE": str(tmp_path / "key")}
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}", **key_file)
    try:
        assert relay.start().http("POST", "/api/v1/pair", admin=True)[0] == 201
    finally:
        relay.stop()


def test_without_an_admin_key_the_endpoints_are_closed(tmp_path: Path) -> None:
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}")
    try:
        relay.start()
        for key in ("", "anything"):
            status, body = relay.http("POST", "/api/v1/pair", headers={"X-Admin-Key": key})
            assert (status, body["error"]["code"]) == (403, "ADMIN_CLOSED")
            assert relay.http("GET", "/metrics", headers={"X-Admin-Key": key})[0] == 403
    finally:
        relay.stop()


def test_a_made_admin_key_is_printed_once_kept_private_and_used_again(tmp_path: Path) -> None:
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}", "-make-admin-key")
    key_file = relay.state_dir / "admin-key"
    try:
        relay.start()
        key = key_file.read_text().strip()
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert relay.output.count(key) == 1
        assert f"curl -X POST http://127.0.0.1:{relay.port}/api/v1/pair" in relay.output
        relay.stop()
        relay.start()
        assert relay.output.count(key) == 1
        assert relay.http("POST", "/api/v1/pair", headers={"X-Admin-Key": key})[0] == 201
    finally:
        relay.stop()


def test_the_printed_line_creates_a_token_as_it_stands(tmp_path: Path) -> None:
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}", "-make-admin-key")
    try:
        relay.start()
        line = next(line for line in relay.output.splitlines() if line.startswith("  curl "))
        made = subprocess.run(
            line.replace("curl", "curl -s", 1),
            shell=True,
            capture_output=True,
            timeout=30,
            check=True,
        )
        assert json.loads(made.stdout)["token"].startswith("oc_pair_")
    finally:
        relay.stop()


def test_db_names_the_file(tmp_path: Path) -> None:
    relay = start(tmp_path, "-addr", "127.0.0.1:{port}", "-db", "my.sqlite3")
    try:
        relay.start()
        assert (tmp_path / "my.sqlite3").exists()
        assert not (relay.state_dir / "coralmux.sqlite3").exists()
    finally:
        relay.stop()


@pytest.mark.parametrize("flag", ["-db", "-state-dir"])
def test_a_path_may_have_the_marks_of_a_url(tmp_path: Path, flag: str) -> None:
    name = "what? 100% #1 a+b%20"
    (tmp_path / name).mkdir()
    path = f"{name}/{name}.sqlite3" if flag == "-db" else name
    assert run(tmp_path, flag, path, "token", "issue", "--label", "phone").returncode == 0
    file = path if flag == "-db" else f"{name}/coralmux.sqlite3"
    assert (tmp_path / file).exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) in ([name], ["state", name])


@pytest.mark.parametrize("command", [["-addr", "127.0.0.1:0"], ["token", "list"]])
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, command: list[str]) -> None:
    ended = run(tmp_path, "-db", "/nonexistent/x.sqlite3", *command)
    assert ended.returncode == 1
    assert "/nonexistent/x.sqlite3 cannot be used" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["-addr", "127.0.0.1:0"], ["token", "list"]])
def test_a_database_of_a_newer_release_is_refused(tmp_path: Path, command: list[str]) -> None:
    with relay_process() as relay:
        relay.stop()
        with sqlite3.connect(relay.state_dir / "coralmux.sqlite3") as database:
            database.execute(
                "INSERT INTO django_migrations (app, name, applied) "
                "VALUES ('pairing', '9999_later', '2026-01-01')"
            )
        database.close()
        ended = run(tmp_path, *command, CORALMUX_STATE_DIR=str(relay.state_dir))
        assert ended.returncode == 1
        assert "newer release" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["-addr", "nonsense"], {}, "127.0.0.1:8080"),
        (["-addr", "127.0.0.1:99999"], {}, "HOST:PORT"),
        (["serve", "more"], {}, "--help"),
        (["token", "frobnicate"], {}, "issue, list, revoke"),
        ([], {"CORALMUX_PINGS_PER_MINUTE": "many"}, "docs/settings.md"),
        ([], {"CORALMUX_HOLD_SECONDS": "-1"}, "docs/settings.md"),
        ([], {"DATABASE_URL": "postgres://user:hunter2@example.com/x"}, "SQLite"),
        ([], {"CORALMUX_ADMIN_KEY_FILE": "/does/not/exist"}, "Check the path"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str], env: dict[str, str], says: str
) -> None:
    ended = run(tmp_path, *arguments, **env)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "hunter2" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_that_is_not_ours_is_refused_with_a_reason(tmp_path: Path) -> None:
    ended = run(tmp_path, "-addr", "192.0.2.1:8080")
    assert ended.returncode == 1
    assert ended.stderr == (
        "coralmux-relay: Cannot listen on 192.0.2.1:8080: this machine has no such address.\n"
    )


def test_help_shows_the_flags_and_examples(tmp_path: Path) -> None:
    for flag in ("-h", "-help", "--help"):
        shown = run(tmp_path, flag)
        assert shown.returncode == 0
        for text in ("-addr", "-admin-key", "-db", "-public", "token", "curl -X POST"):
            assert text in shown.stdout
    assert run(tmp_path, "-version").stdout == f"coralmux-relay {__version__}\n"
    assert "revoke" in run(tmp_path, "token", "--help").stdout
    assert "--expires-in" in run(tmp_path, "token", "issue", "--help").stdout


def test_tokens_are_managed_from_the_shell_with_json(tmp_path: Path) -> None:
    issued = json.loads(run(tmp_path, "token", "issue", "--label", "phone", "--json").stdout)
    assert issued["token"].startswith("oc_pair_")
    listed = json.loads(run(tmp_path, "token", "list", "--json").stdout)
    assert [row["label"] for row in listed] == ["phone"]
    assert issued["token"] not in json.dumps(listed)
    assert run(tmp_path, "token", "revoke", str(issued["id"])).returncode == 0
    assert json.loads(run(tmp_path, "token", "list", "--json").stdout) == []
    assert run(tmp_path, "token", "usage", "--json").returncode == 0
    assert run(tmp_path, "token", "prune", "--json").returncode == 0
    assert run(tmp_path, "token", "revoke", "999").returncode == 1
