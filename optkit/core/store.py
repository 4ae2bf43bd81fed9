"""Content-addressed artifacts: looked up by key, committed atomically, verified when read.

An artifact appears under its final name only when it is complete, so a process killed at any moment
leaves nothing half-written behind, only a work folder that the next start removes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from optkit.core import fingerprint, machine
from optkit.core.errors import InputError, first_problem
from optkit.core.types import MANIFEST, Artifact, FileEntry, Format, Manifest

POLL_SECONDS = 0.2
SCRATCH_DAYS = 30  # what a killed run left is removed when nobody went on with it for so long


def read_manifest(path: Path) -> Manifest:
    """The manifest in folder `path`; InputError when it is absent or broken. The files may be elsewhere."""
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{str(path)!r} is not an artifact.",
            why=f"It has no {MANIFEST}.",
            hint="Give a folder that an optkit command wrote, or a model file.",
        ) from None
    except ValidationError as error:
        raise InputError(
            f"The manifest of {str(path)!r} cannot be read.",
            why=first_problem(error),
            hint="It was changed by hand or written by another version; run the step again.",
        ) from None


def read_artifact(path: Path) -> Artifact:
    """The artifact in folder `path`; InputError when its manifest is absent, broken or lacks a file."""
    manifest = read_manifest(path)
    if manifest.format is not Format.RESULT and manifest.format.filename not in manifest.files:
        raise InputError(f"The artifact {str(path)!r} has no model file.", hint="Run the step again.")
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts or not (path / name).is_file():
            raise InputError(
                f"The artifact {str(path)!r} lacks its file {name!r}.", hint="Run the step again."
            )
    return Artifact(key=manifest.key, path=path, manifest=manifest)


def damage(artifact: Artifact) -> str | None:
    """The first file whose content is not what the manifest says, None when all are."""
    for name, entry in artifact.manifest.files.items():
        if fingerprint.of_file(artifact.path / name) != entry.sha256:
            return name
    return None


def write_atomically(path: Path, content: str) -> None:
    """Replace a small text file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def check_target(target: Path) -> None:
    """InputError unless `copy_artifact` may write to `target`: it is absent, empty, or an artifact."""
    if target.is_file() or target.resolve() == Path.cwd():
        raise InputError(
            f"{str(target)!r} cannot take the result.",
            why="It is a file." if target.is_file() else "It is the current folder, which would be replaced.",
            hint="Give a folder of its own with --out.",
        )
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise InputError(
            f"{str(target)!r} exists and is not an optkit artifact.",
            why="Replacing it would lose what is in it.",
            hint="Choose another --out, or remove the folder.",
        )


def copy_artifact(artifact: Artifact, target: Path) -> None:
    """Show `artifact` at `target` in one step: hard links where the file system has them.

    Replaces an older artifact, and refuses to replace anything else.
    """
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for source in artifact.path.rglob("*"):
            _link(source, fresh / source.relative_to(artifact.path))
        fresh.chmod(0o755)
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        if target.exists():
            os.replace(target, old)
        os.replace(fresh, target)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _link(source: Path, copy: Path) -> None:
    if source.is_dir():
        copy.mkdir(parents=True, exist_ok=True)
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, copy)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, copy)


class Store:
    """A folder of artifacts, one folder a key; `work/` holds what is not finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._work = root / "work"

    def path(self, key: str) -> Path:
        """Where the artifact of `key` lies, or would lie."""
        return self.root / key

    def find(self, key: str) -> Artifact | None:
        """The artifact of `key`, None when it was never made or no longer matches its digests."""
        if not (self.path(key) / MANIFEST).is_file():
            return None
        try:
            artifact = read_artifact(self.path(key))
            return None if damage(artifact) else artifact
        except (InputError, FileNotFoundError):  # the latter: another process replaces it just now
            return None

    @contextmanager
    def workdir(self, key: str) -> Iterator[Path]:
        """A private folder to fill before `commit`; removed afterwards, whatever happens."""
        self._work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._work, prefix=f"{key}.{os.getpid()}."))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def scratch(self, key: str) -> Path:
        """A folder for what a killed run of `key` leaves to the next one; it need not exist."""
        return self.root / "scratch" / key

    def wait_for(self, key: str) -> Artifact:
        """The artifact of `key` as soon as the main process has committed it.

        KeyboardInterrupt when the process that started this one is gone.
        """
        parent = os.getppid()
        while not (self.path(key) / MANIFEST).is_file():
            if os.getppid() != parent:
                raise KeyboardInterrupt
            time.sleep(POLL_SECONDS)
        return read_artifact(self.path(key))

    def commit(self, workdir: Path, manifest: Manifest) -> Artifact:
        """Make what lies in `workdir` the artifact of `manifest.key`, in one step."""
        files = {
            path.relative_to(workdir).as_posix(): FileEntry(
                sha256=fingerprint.of_file(path), size_bytes=path.stat().st_size
            )
            for path in sorted(workdir.rglob("*"))
            if path.is_file()
        }
        complete = manifest.model_copy(
            update={
                "files": files,
                "machine": machine.facts(),
                "packages": machine.packages(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        text = json.dumps(complete.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(workdir / MANIFEST, text + "\n")
        workdir.chmod(0o755)
        target = self.path(manifest.key)
        if target.exists():  # an older or damaged one, or the same one made by another process meanwhile
            os.replace(target, Path(tempfile.mkdtemp(dir=self._work, prefix="old..")))
        os.replace(workdir, target)
        shutil.rmtree(self.scratch(manifest.key), ignore_errors=True)
        return read_artifact(target)

    def collect_garbage(self) -> None:
        """Remove the work folders of processes that are gone, and what killed runs left long ago."""
        oldest = time.time() - SCRATCH_DAYS * 24 * 3600
        for folder in self.scratch("").glob("*"):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._work.glob("*") if self._work.is_dir() else ():
            owner = [*folder.name.split("."), ""][1]
            if not (owner.isdigit() and _is_running(int(owner))):
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
