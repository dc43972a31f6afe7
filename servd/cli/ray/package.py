"""The code of a configuration as a package of Ray: a zip file, named by its content."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Set
from fnmatch import fnmatch

from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.daemon.watch.gitignore import Ignored
from servd.export.containers.options import ExportSource
from servd.export.dockerfile import SECRET_NAMES, secret_files

_LARGEST_BYTES = 500 * 2**20
"""What Ray keeps of a package: larger ones belong into a volume or an image."""

_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_EXECUTABLE, _PLAIN = 0o755, 0o644


@dataclass(frozen=True, slots=True)
class CodePackage:
    """The `files` of a folder, names and paths."""

    folder: str
    files: tuple[tuple[str, str], ...]
    digest: str

    @property
    def name(self) -> str:
        """Its name at the cluster."""
        return f"_ray_pkg_{self.digest}.zip"

    @property
    def uri(self) -> str:
        """Its `working_dir`."""
        return f"gcs://{self.name}"

    def content(self) -> bytes:
        """Returns the zip file. Raises `ServdError` if it is too large for Ray."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in self.files:
                entry = zipfile.ZipInfo(name, _FIRST_DATE)
                mode = _EXECUTABLE if os.access(path, os.X_OK) else _PLAIN
                entry.external_attr = mode << 16
                with open(path, "rb") as file:
                    archive.writestr(entry, file.read(), zipfile.ZIP_DEFLATED)
        if len(found := buffer.getvalue()) >= _LARGEST_BYTES:
            size = f"{len(found) / 2**20:.0f} MiB"
            raise ServdError(
                f"{self.folder} has {size}, and Ray takes less than 500 MiB: name large files in"
                " .gitignore, or give the nodes the code and write --working-dir"
            )
        return found


def package_of(source: ExportSource) -> CodePackage:
    """Returns the package of the folder of a configuration, without what `.gitignore` names, hidden
    files, caches, and files of secrets, as in an image. The configuration itself is no code: a
    change of it replaces what it concerns.
    """
    secrets = [os.path.join(source.folder, path) for path in secret_files(source)]
    without = {os.path.realpath(path) for path in (*source.loaded.texts, *secrets)}
    files = tuple(_files(source.folder, without))
    digest = hashlib.sha256()
    for name, path in files:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{os.access(path, os.X_OK)}\0{content}\n".encode())
    return CodePackage(source.folder, files, digest.hexdigest()[:16])


def _files(folder: str, without: Set[str]) -> Iterator[tuple[str, str]]:
    """Yields the names and the paths of the files, in order."""
    ignored = Ignored(folder)
    found = [
        entry.path
        for inside in ignored.folders(folder)
        for entry in os.scandir(inside)
        if entry.is_file() and not entry.name.startswith(".") and not ignored(entry.path)
    ]
    for path in sorted(found):
        is_secret = any(fnmatch(os.path.basename(path), name) for name in SECRET_NAMES)
        if not is_secret and os.path.realpath(path) not in without:
            yield os.path.relpath(path, folder), path
