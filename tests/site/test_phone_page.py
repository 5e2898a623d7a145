"""What the relay hands out as the phone in the browser."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient, Client

from coralmux_site import phone, phone_files
from tests.support.parts import lacking

try:
    FILES = sorted(phone_files.served())
except phone_files.PackagesMissing as missing:
    lacking(str(missing), allow_module_level=True)
MODULES = [name for name in FILES if name.endswith((".js", ".mjs"))]


def get(path: str, **headers: str) -> Any:
    return Client().get(path, headers=headers)


def forget() -> None:
    for module in (phone, phone_files):
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of its own whose phone is served, without npm's packages."""
    shutil.copytree(phone_files.folder(), tmp_path / "static" / "phone")
    monkeypatch.setattr(phone_files, "CHECKOUT", tmp_path)
    forget()
    yield tmp_path
    forget()


def test_the_policy_of_the_page_is_this_one() -> None:
    policy = get("/phone")["Content-Security-Policy"]
    assert re.sub("'sha256-[^']+'", "'sha256-…'", policy) == (
        "default-src 'none'; script-src 'self' 'sha256-…'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types coralmux"
    )


def test_the_page_says_no_referrer_and_may_use_the_camera_alone() -> None:
    page = get("/phone")
    assert page.status_code == 200
    assert page["Referrer-Policy"] == "no-referrer"
    assert page["Permissions-Policy"] == "camera=(self), microphone=(), geolocation=()"
    assert page["Cross-Origin-Opener-Policy"] == "same-origin"
    assert page["X-Content-Type-Options"] == "nosniff"
    assert not page.cookies
    assert "Cookie" not in page["Vary"]


@pytest.mark.parametrize(
    "path", ["/phone", "/phone/service-worker.js", "/phone/manifest.webmanifest"]
)
async def test_what_changes_under_its_address_is_asked_for_again(path: str) -> None:
    answer = await AsyncClient().get(path)
    assert answer["Cache-Control"] == "no-cache"
    again = await AsyncClient().get(path, headers={"If-None-Match": answer["ETag"]})
    assert again.status_code == 304


def test_a_page_that_has_not_changed_keeps_its_policy() -> None:
    """A browser takes the headers of a 304 in the place of those that it has kept."""
    page = get("/phone")
    again = get("/phone", if_none_match=page["ETag"])
    assert again.status_code == 304
    for header in (
        "Content-Security-Policy",
        "Permissions-Policy",
        "Referrer-Policy",
        "Cross-Origin-Opener-Policy",
    ):
        assert again[header] == page[header]


def test_what_views_share_comes_before_their_own_styles() -> None:
    page = get("/phone").content.decode()
    sheets = re.findall(r'rel="stylesheet" href="([^"]+)"', page)
    assert sheets == [phone.url(name) for name in phone_files.styles()]
    shared = ["/styles/shared/" in sheet for sheet in sheets]
    assert shared == sorted(shared, reverse=True)
    assert shared.count(True) > 3
    assert shared.count(False) > 3


def test_the_fragment_is_taken_before_anything_else_is_fetched() -> None:
    page = get("/phone").content.decode()
    first = re.search(r'(?:src|href)="([^"]+)"', page)
    assert first is not None
    assert first[1] == phone.url("app/fragment.js")
    assert f'<script src="{first[1]}"></script>' in page


def test_the_page_asks_for_nothing_that_is_not_there() -> None:
    page = get("/phone").content.decode()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r'": "(/[^"]+)"', page)
    assert len(addresses) > 60
    for address in addresses:
        assert address.startswith("/"), "everything comes from here"
        assert get(address).status_code == 200, address


def test_a_link_with_a_slash_leads_to_the_page() -> None:
    assert get("/phone/")["Location"] == "/phone"


@pytest.mark.parametrize("path", ["/phone", "/phone/", "/phone/service-worker.js"])
def test_nothing_can_be_posted_there(path: str) -> None:
    assert Client(enforce_csrf_checks=True).post(path).status_code == 405


@pytest.mark.parametrize("name", FILES)
def test_files_are_served_for_ever_with_their_type(name: str) -> None:
    answer = get(phone.url(name))
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "public, max-age=31536000, immutable"
    if name not in phone_files.ours() or not name.endswith((".js", ".css")):
        assert answer.content == phone_files.served()[name].read_bytes()
    if name in MODULES:
        assert answer["Content-Type"] == "text/javascript; charset=utf-8"


def plain(folder: Path) -> dict[str, str]:
    """What TypeScript makes of modules: the same where nothing but comments differs."""
    node_modules = phone_files.CHECKOUT / "node_modules"
    options = "--allowJs --noCheck --noResolve --removeComments --target esnext --module esnext"
    out = folder.parent / f"{folder.name}-plain"
    folders = ["--rootDir", folder, "--outDir", out]
    subprocess.run(
        [node_modules / ".bin/tsc", *options.split(), *folders, *sorted(folder.rglob("*.js"))],
        check=True,
        timeout=60,
    )
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.js")}


def test_our_files_are_served_without_comments_and_otherwise_as_they_are(tmp_path: Path) -> None:
    sources = {
        name: path.read_text("utf-8")
        for name, path in phone_files.ours().items()
        if name.endswith((".js", ".css"))
    }
    served = {name: phone_files.content(name).decode() for name in sources}
    for name, text in served.items():
        assert not re.search(r"^\s*(//|/\*\*$)", text, re.MULTILINE), name
        # What a browser reports of a line is true of the source.
        assert text.count("\n") == sources[name].count("\n"), name
        if name.endswith(".css"):
            rest = [re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL) for css in (text, sources[name])]
            assert rest[0].split() == rest[1].split()
    # One whose comments are its text is found.
    sources["wrong.js"], served["wrong.js"] = "x = `\n// a\n`;", "x = `\n\n`;"
    for folder, texts in (("source", sources), ("served", served)):
        for name, text in texts.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    source, result = plain(tmp_path / "source"), plain(tmp_path / "served")
    assert len(source) > 90
    assert [name for name in source if source[name] != result[name]] == ["wrong.js"]


def test_text_is_packed_for_who_takes_that() -> None:
    name = "npm/marked/lib/marked.esm.js"
    plain = get(phone.url(name))
    packed = get(phone.url(name), accept_encoding="br, gzip")
    assert packed["Content-Encoding"] == "gzip"
    assert packed["Vary"] == plain["Vary"] == "Accept-Encoding"
    assert gzip.decompress(packed.content) == plain.content
    assert len(packed.content) < len(plain.content) / 2


@pytest.mark.parametrize(
    "name",
    [
        "tsconfig.json",
        "service-worker.js",
        "npm/preact/package.json",
        "npm/typescript/lib/tsc.js",
        "npm/marked/lib/../lib/marked.esm.js",
        "../../manage.py",
        "app/../../../manage.py",
        "",
    ],
)
def test_nothing_else_is_served(name: str) -> None:
    assert get(phone.url(name)).status_code == 404


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_imports_is_served(name: str) -> None:
    for target in phone_files.imports(name):
        assert target in phone_files.served(), target


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("core/")])
def test_the_core_imports_nothing_but_itself(name: str) -> None:
    assert all(target.startswith("core/") for target in phone_files.imports(name))


def test_the_page_preloads_what_it_begins_with_and_not_what_can_wait() -> None:
    modules = phone_files.modules()
    assert modules[0] == "app/main.js"
    assert "npm/preact/dist/preact.mjs" in modules
    assert "core/phone.js" in modules
    assert "npm/qr/decode.js" not in modules


def test_the_worker_may_serve_the_page_and_knows_everything_that_it_needs() -> None:
    worker = get("/phone/service-worker.js")
    assert worker["Service-Worker-Allowed"] == "/phone"
    assert worker["Content-Type"].startswith("text/javascript")
    source = worker.content.decode()
    for path in ("/phone", phone.MANIFEST, *map(phone.url, MODULES + phone_files.styles())):
        if path != phone.url("service-worker.js"):
            assert f'"{path}"' in source


def test_all_that_the_worker_keeps_is_small() -> None:
    """The scanner's code and the other languages too, which the page loads when it needs them."""
    kept = re.findall('^  "(.+)"', get("/phone/service-worker.js").content.decode(), re.MULTILINE)
    assert len(kept) > 100
    answers = [get(path, accept_encoding="gzip") for path in kept]
    assert sum(len(answer.content) for answer in answers) <= 250_000


def test_the_manifest_makes_an_app_of_it() -> None:
    answer = get("/phone/manifest.webmanifest")
    manifest = answer.json()
    assert answer["Content-Type"] == "application/manifest+json"
    assert manifest["start_url"] == manifest["scope"] == "/phone"
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        picture = get(icon["src"])
        if icon["type"] == "image/png":
            width, height = (int.from_bytes(picture.content[n : n + 4]) for n in (16, 20))
            assert icon["sizes"] == f"{width}x{height}"
    assert {icon.get("purpose") for icon in manifest["icons"]} >= {"any", "maskable"}


def test_without_npm_s_packages_the_page_says_what_to_do(checkout: Path) -> None:
    for path in ("/phone", "/phone/service-worker.js"):
        answer = get(path)
        assert answer.status_code == 503
        assert "make install" in answer.content.decode()
    assert get(phone.url("app/main.js")).status_code == 404
    assert get("/").status_code == 200


def install(checkout: Path) -> None:
    for name in phone_files.NPM:
        target = checkout / "node_modules" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(phone_files.PACKAGE_DIR.parent / "node_modules" / name, target)


def change_ours(checkout: Path) -> None:
    with (checkout / "static/phone/app/main.js").open("a") as file:
        file.write("void 0;\n")


def change_theirs(checkout: Path) -> None:
    with (checkout / "node_modules/htm/dist/htm.module.js").open("a") as file:
        file.write("// changed\n")


def add_one(checkout: Path) -> None:
    (checkout / "static/phone/app/more.js").write_text("")


def change_the_worker(checkout: Path) -> None:
    with (checkout / "static/phone/service-worker.js").open("a") as file:
        file.write("// changed\n")


@pytest.mark.parametrize(
    ("change", "files_too"),
    [(change_ours, True), (change_theirs, True), (add_one, True), (change_the_worker, False)],
)
def test_a_change_is_a_new_version(
    change: Callable[[Path], None], files_too: bool, checkout: Path
) -> None:
    install(checkout)
    digest, worker = phone_files.digest(), get(phone.WORKER).content
    forget()
    assert (phone_files.digest(), get(phone.WORKER).content) == (digest, worker)
    change(checkout)
    forget()
    assert (phone_files.digest() != digest) is files_too
    assert re.fullmatch("[0-9a-f]{8}", phone_files.digest())
    if not files_too:
        assert get(phone.WORKER).content.splitlines()[0] != worker.splitlines()[0]
