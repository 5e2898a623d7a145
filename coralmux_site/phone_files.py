"""The files of the phone in the browser: ours under static/phone, and npm packages'.

Knows no Django: settings ask for the digest before Django is there, and the wheel's
build for what to pack.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path, PurePosixPath

PACKAGE_DIR = Path(__file__).resolve().parent
CHECKOUT = PACKAGE_DIR.parent

# What a page may import by a bare name: the file in node_modules. Nothing else of the
# packages is served.
IMPORTS = {
    "preact": "preact/dist/preact.mjs",
    "preact/hooks": "preact/hooks/dist/hooks.mjs",
    "htm": "htm/dist/htm.module.js",
    "marked": "marked/lib/marked.esm.js",
    "qr": "qr/index.js",
    "qr/decode.js": "qr/decode.js",
    "idb-keyval": "idb-keyval/dist/index.js",
}
# Who hands out a package hands out its licence.
LICENSES = (
    "preact/LICENSE",
    "htm/LICENSE",
    "marked/LICENSE",
    "qr/LICENSE-MIT",
    "idb-keyval/LICENCE",
)
NPM = (*IMPORTS.values(), *LICENSES)

MAIN = "app/main.js"
FRAGMENT = "app/fragment.js"
WORKER = "service-worker.js"

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    "": "text/plain; charset=utf-8",
}

# `import … from "x"` and `export … from "x"`, not `import("x")`, which waits until it is wanted.
_STATIC_IMPORT = re.compile(
    r"""^(?:import\s*|(?:import|export)\b[^"'();=]*\bfrom\s*)["']([^"']+)["']""", re.MULTILINE
)

# A comment with lines of its own. Within a template literal there is none: tests look.
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.MULTILINE)


class PackagesMissing(Exception):
    """The npm packages are not installed; the text says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "The phone's packages are not installed at this relay. Its operator installs Node.js "
            "with npm, types `make install` where the relay's code is, and starts the relay again."
        )


def folder() -> Path:
    """Where our files are: inside the package of a wheel, at the top of a checkout."""
    packed = PACKAGE_DIR / "static" / "phone"
    return packed if packed.is_dir() else CHECKOUT / "static" / "phone"


def npm_folder() -> Path:
    """Where the packages are, in the same two cases."""
    packed = folder() / "npm"
    return packed if packed.is_dir() else CHECKOUT / "node_modules"


@functools.cache
def ours() -> dict[str, Path]:
    """Our files that are served, by name: app/main.js, styles/list.css, …"""
    root = folder()
    found = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.suffix in TYPES and path.is_file()
    }
    return {
        name: path
        for name, path in found.items()
        if name != WORKER and path.suffix and not name.startswith("npm/")
    }


@functools.cache
def packages() -> dict[str, Path]:
    """The packages' files that are served: npm/preact/dist/preact.mjs, …

    Raises PackagesMissing where one is not there.
    """
    root = npm_folder()
    found = {f"npm/{name}": root / name for name in NPM}
    if not all(path.is_file() for path in found.values()):
        raise PackagesMissing
    return found


@functools.cache
def served() -> dict[str, Path]:
    """Every file by the name under which it is served. Raises PackagesMissing."""
    return {**ours(), **packages()}


@functools.cache
def digest() -> str:
    """Changes when a file does. Eight hexadecimal digits."""
    try:
        files = served()
    except PackagesMissing:
        files = ours()
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(content(name)).digest())
    return total.hexdigest()[:8]


def content(name: str) -> bytes:
    """A file as it is served: ours without the comments, which are a third of what is loaded.

    Lines keep their numbers. Raises PackagesMissing, and KeyError where there is no such file.
    """
    if name not in ours():
        return packages()[name].read_bytes()
    path = ours()[name]
    if path.suffix not in (".js", ".css"):
        return path.read_bytes()
    return _COMMENT.sub(_empty_lines, path.read_text("utf-8")).encode()


def media_type(name: str) -> str:
    """The Content-Type of a served file."""
    return TYPES.get(PurePosixPath(name).suffix, TYPES[""])


def styles() -> list[str]:
    """Our style sheets: what the views share, then theirs, which may differ from it."""
    names = [name for name in ours() if name.endswith(".css")]
    return sorted(names, key=lambda name: (not name.startswith("styles/shared/"), name))


def imports(name: str) -> list[str]:
    """The files that a served module imports before it runs. Raises PackagesMissing."""
    source = served()[name].read_text("utf-8")
    return [_resolved(name, target) for target in _STATIC_IMPORT.findall(source)]


def modules() -> list[str]:
    """What the page loads before it can begin: main and all that it imports, at whatever depth.

    Raises PackagesMissing.
    """
    found: list[str] = []
    waiting = [MAIN]
    while waiting:
        name = waiting.pop()
        if name in served() and name not in found:
            found.append(name)
            waiting += imports(name)
    return found


def shell() -> list[str]:
    """What a page that is offline needs. Raises PackagesMissing.

    That is everything but the licences, and the large icons that a system takes when it installs.
    """
    return [
        name
        for name in served()
        if name.removeprefix("npm/") not in LICENSES and not name.endswith("-512.png")
    ]


def _empty_lines(comment: re.Match[str]) -> str:
    return "\n" * comment[0].count("\n")


def _resolved(importer: str, target: str) -> str:
    if target in IMPORTS:
        return f"npm/{IMPORTS[target]}"
    parts: list[str] = list(PurePosixPath(importer).parent.parts)
    for part in target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
