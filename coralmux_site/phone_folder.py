"""The phone as a folder of files, for a server of one's own that is no relay."""

from __future__ import annotations

from pathlib import Path

from coralmux_site import phone, phone_files

_PAGE = "./"
_MANIFEST = "manifest.webmanifest"


def write(folder: Path) -> None:
    """Write page, files, service worker and manifest, with addresses relative to the page's.

    Raises PackagesMissing, FileExistsError where there is something in the folder, and other
    OSErrors.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    prefix = f"files-{phone_files.digest()}/"

    def address(name: str) -> str:
        return f"./{prefix}{name}"

    manifest = phone.manifest_for(address, _PAGE)
    page = phone.page_for(address, manifest=_MANIFEST, worker=phone_files.WORKER, elsewhere=True)
    paths = [_PAGE, _MANIFEST, *map(address, phone_files.shell())]
    files = {
        "index.html": page.body,
        _MANIFEST: manifest.body,
        phone_files.WORKER: phone.worker_for(page, manifest, paths).body,
        **{prefix + name: phone_files.content(name) for name in phone_files.served()},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
