"""Every check of the project by name: `nox -l` lists them, `nox` runs the quick ones.

Arguments after `--` go to pytest: `nox -s unit -- -k cursor`.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "imports", "unit"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PARALLEL = ("-n", "auto", "--dist", "loadgroup")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes (ruff), and formatting."""
    session.install("ruff>=0.13")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the package, with the optional dependencies that it imports."""
    session.install(
        "-e", ".[cli,embedded,opentelemetry,prometheus,telethon]", "mypy>=1.14", "pytest"
    )
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """The order of the rooms, and which of them may import a driver."""
    session.install("import-linter>=2.3")  # reads the sources, imports nothing
    # Its cache keeps what a file's imports meant before a module they name came or went.
    session.run("lint-imports", "--no-logo", "--no-cache")


@nox.session
def unit(session: nox.Session) -> None:
    """Tests that open no socket; seconds."""
    run_tests(session, "unit")


@nox.session
def contract(session: nox.Session) -> None:
    """One suite over every implementation of a contract."""
    run_tests(session, "contract", *PARALLEL)


@nox.session
def integration(session: nox.Session) -> None:
    """Tests on real servers, started by the tests themselves."""
    run_tests(session, "integration", *PARALLEL)


@nox.session
def faults(session: nox.Session) -> None:
    """Tests that kill servers and processes."""
    run_tests(session, "faults", *PARALLEL)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Us beside the limit and the alternatives. `-- --help` tells what it takes; `-- --quick`."""
    session.install("-e", ".[benchmarks]")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation into site/; a broken link or reference fails. `-- serve` to read along."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    session.install(*project["optional-dependencies"]["docs"])  # reads the sources too
    session.run("zensical", *(session.posargs or ("build", "--clean", "--strict")))


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """All tests against the built wheel, from a folder where the checkout cannot be imported."""
    folder = Path(session.create_tmp()).resolve()
    for old in folder.glob("*.whl"):
        old.unlink()
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(folder), silent=True)
    (built,) = folder.glob("*.whl")
    session.install(f"{built}[test]")
    session.chdir(folder)
    session.run(
        *("pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *PARALLEL),
        *(session.posargs or [str(ROOT / "tests")]),
    )


def run_tests(session: nox.Session, folder: str, *options: str) -> None:
    """Run tests/`folder` on an editable installation."""
    session.install("-e", ".[test]")
    session.run("pytest", *options, f"tests/{folder}", *session.posargs)
