"""`study.json`: what was run, on what, with what, and how it ended. Written and read here alone."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import convae
from convae.hardware import versions
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError, without_secrets
from study.folder.tables import ABSENT, RESTORE

# What a manifest must have to be read; a dot leads into a dictionary.
KEYS: Final = (
    *("name", "status", "started_utc", "finished_utc", "wall_seconds", "command", "versions"),
    *("spec.preset", "spec.given_trials", "spec.samplers", "spaces", "data.source"),
    *("code.version", "code.git_commit", "code.git_dirty"),
    *("hardware.cpu", "hardware.n_cpus", "hardware.memory_gib", "hardware.gpus"),
    *("resources.cpus_per_trial", "resources.gpus_per_trial", "resources.max_concurrent"),
)


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """What was run: spec, code, versions, hardware, data and command line.

    Raises:
        RunFolderError: it is absent or torn, of another form of run folder, or lacks one of `KEYS`.
    """
    name = f"{folder}/{schema.MANIFEST_FILE}"
    if (content := folder.read(schema.MANIFEST_FILE)) is None:
        raise RunFolderError(f"{name} {ABSENT}.")
    try:
        manifest: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise RunFolderError(f"{name} is not whole JSON ({error}); {RESTORE}.") from error
    if not isinstance(manifest, dict):
        raise RunFolderError(f"{name} does not hold a JSON object; {RESTORE}.")
    if (form := manifest.get("form", 1)) != schema.FORM:
        raise RunFolderError(
            f"{name} is that of a run folder of form {form}, but this code reads form"
            f" {schema.FORM}; read it with the code that wrote it, form 1 with that of commit"
            f" {schema.COMMIT_OF_FORM_1}."
        )
    for key in KEYS:
        found: Any = manifest
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                raise RunFolderError(f"{name} has no {key!r}; {RESTORE}.")
            found = found[part]
    return manifest


class Manifest:
    """The manifest of a study that runs; a `RunFolderError` is raised if it cannot be written.

    Args:
        folder: the run folder.
        command: of this session; that of the first one stays the study's.
        earlier: the manifest of an earlier session to go on with; times add up over sessions.
        entries: further entries; `code` and `versions` in place of what is found here.
    """

    def __init__(
        self,
        folder: RunFolder,
        command: list[str],
        *,
        earlier: Mapping[str, Any] | None = None,
        **entries: Any,
    ) -> None:
        self._folder = folder
        self._started = time.monotonic()
        self._written = False
        earlier = earlier or {}
        # Of wall time that earlier sessions have spent.
        self.earlier_seconds: float = earlier.get("wall_seconds") or 0.0
        code = entries.get("code") or code_identity()
        session = {"started_utc": utc_now(), "command": command, "git_commit": code["git_commit"]}
        self._entries: dict[str, Any] = {
            "form": schema.FORM,
            "name": folder.name,
            "status": "running",
            "command": earlier.get("command", command),
            "started_utc": earlier.get("started_utc", session["started_utc"]),
            "finished_utc": None,
            "sessions": [*earlier.get("sessions", []), session],
            "code": code,
            "versions": entries.get("versions") or versions(),
            **entries,
        }
        self.write()

    def note_fallback(self, program: str, reason: str) -> None:
        """Notes that a program does not work here, and the plain trainer trains its trials.

        It is written with what comes next.
        """
        self._entries["resources"].setdefault("fallbacks", {})[program] = reason

    def note(self, **entries: Any) -> None:
        """Notes further entries, which are written with what comes next."""
        self._entries.update(entries)

    def finish(self, status: str) -> None:
        """Notes how the study ended."""
        self._entries.update(status=status, finished_utc=utc_now())
        self.write()

    def write(self) -> None:
        """Writes it with the time spent so far, which a session that is killed would not tell."""
        if self._written and self._folder.read(schema.MANIFEST_FILE) is None:
            # In a bucket the next file would make the folder anew, without the rest.
            raise RunFolderError(f"{self._folder} has vanished while the study ran.")
        seconds = self.earlier_seconds + time.monotonic() - self._started
        self._entries["wall_seconds"] = round(seconds, 3)
        text = without_secrets(json.dumps(self._entries, indent=2)) + "\n"
        self._folder.write(schema.MANIFEST_FILE, text.encode())
        self._written = True


def utc_now() -> str:
    """This moment in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


CODE = ("?? analysis/", "?? convae/", "?? study/")  # new files that change it, in git's words


def code_identity(file: Path = Path(__file__)) -> dict[str, Any]:
    """The identity of the code: its version, and the commit of a checkout that this file is of.

    Where a repository has other code, such as one around an installation, there is no commit.
    """
    file = file.resolve()
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(file.parent), *arguments]
        pipes: dict[str, Any] = {"capture_output": True, "text": True, "env": environment}
        try:
            run = subprocess.run(command, check=False, **pipes)
        except FileNotFoundError:  # no git on this machine
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", file.name) is not None
    # What a person keeps beside the code, such as a study file, changes nothing of it.
    status = git("status", "--porcelain") if tracked else None
    lines = (status or "").splitlines()
    changed = any(not line.startswith("??") or line.startswith(CODE) for line in lines)
    return {
        "version": convae.__version__,
        "git_commit": git("rev-parse", "HEAD") if tracked else None,
        "git_dirty": None if status is None else changed,
    }
