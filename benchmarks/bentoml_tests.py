"""BentoML's own end-to-end tests for HTTP, once with BentoML's server and once with servd.

    python benchmarks/bentoml_tests.py --python trial/bin/python [--sources FOLDER] [--out FILE]

The tests are those of BentoML's repository, unchanged: the services of BentoML 1.1 with their
runners, newer services and their clients, and monitoring. In the second run the plugin
`harness/in_place_of_bentoml.py` puts servd where the tests start BentoML's server. The page has a
row for each test. Some are left out, see `LEFT_OUT`; `--select` is pytest's expression for it.

`--sources` is a checkout of BentoML. Without it, the program looks into the source distribution of
the version that is installed, which had no tests so far. `benchmarks/README.md` says how to make
the environment. The exit status is 1 if a test passes with BentoML and not with servd.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from harness import machine

PLUGIN = Path(__file__).parent / "harness" / "in_place_of_bentoml.py"
SERVERS = {"BentoML": [], "servd": ["-p", PLUGIN.stem]}
"""The columns, and what pytest gets for each."""

SUITES = (
    "tests/e2e/bento_server_http",
    "tests/e2e/bento_new_sdk",
    "tests/monitoring/task_classification",
)
"""What BentoML's own checks run for HTTP, each with a pytest of its own."""

LEFT_OUT = {
    "container": "the same tests in a container, which needs Docker",
    "distributed": "the same tests with one process for each runner, which BentoML's cloud starts",
    "quickstart": "needs PyTorch, transformers and a model of a hub",
}
"""Words in the names of tests that are left out, and why."""

SELECT = " and ".join(f"not {word}" for word in LEFT_OUT)
SUITE_SECONDS = 1800.0
PACKAGES = ("servd-serve", "bentoml", "kantoku", "starlette", "numpy", "pandas", "pytest")

INTRODUCTION = (
    "`benchmarks/bentoml_tests.py` writes this page. It runs the end-to-end tests for HTTP of"
    " BentoML's repository, unchanged, with BentoML's server and with servd in its place:"
    " `servd.serve(...)` for `bentoml.serve(...)`, and `servd serve` for `bentoml serve`."
    " `test_asgi`, `test_service_init_checks` and `test_dunder_string` start no server."
)

TAGS = {"error": "error", "failure": "failed", "skipped": "skipped"}
"""What a test's element in pytest's report has in it, and the word for it."""

Outcomes = dict[str, str]
"""Of each test by its name, in the order of the run: passed, failed, error or skipped."""


def main() -> None:
    """Runs both and writes the page."""
    options = parsed()
    with contextlib.ExitStack() as stack:
        sources = stack.enter_context(bentoml_sources(options))
        facts = about(options)
        columns = {
            server: tested(server, sources, options.python, options.select)
            for server in options.servers
        }
        text = page(columns, facts)
    print(text, end="")
    if options.out is not None:
        options.out.write_text(text)
    sys.exit(bool(worse(columns)))


def parsed() -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="PYTHON",
        help="interpreter of the environment with servd, BentoML and pytest",
    )
    parser.add_argument("--sources", type=Path, metavar="FOLDER", help="a checkout of BentoML")
    parser.add_argument(
        "--select",
        default=SELECT,
        metavar="EXPRESSION",
        help="which tests, as pytest's -k takes it  [default: %(default)s]",
    )
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here as well")
    options = parser.parse_args()
    options.python = options.python.absolute()  # a virtual environment's is a link: not resolved
    return options


@contextlib.contextmanager
def bentoml_sources(options: argparse.Namespace) -> Iterator[Path]:
    """Yields a copy of BentoML's sources with its tests, which write into their folders."""
    with tempfile.TemporaryDirectory(prefix="bentoml-tests-") as name:
        copy = Path(name) / "sources"
        if options.sources is not None:
            shutil.copytree(options.sources, copy, ignore=shutil.ignore_patterns(".git"))
        else:
            unpack(downloaded(options.python, Path(name)), copy)
        if not all((copy / suite).is_dir() for suite in SUITES):
            where = options.sources or "the source distribution of bentoml"
            sys.exit(f"{where} has no {' or '.join(SUITES)}: name a checkout with --sources")
        yield copy


def downloaded(python: Path, folder: Path) -> Path:
    """Returns the source distribution of the version of BentoML that is installed."""
    version = versions(python, ["bentoml"])["bentoml"]
    subprocess.run(
        [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "bentoml",
         f"bentoml=={version}", "--dest", folder],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    (archive,) = folder.glob("bentoml-*.tar.gz")
    return archive


def unpack(archive: Path, target: Path) -> None:
    """Unpacks an archive with one folder, as `target`."""
    with tarfile.open(archive) as opened:
        opened.extractall(target.parent, filter="data")
    (target.parent / archive.name.removesuffix(".tar.gz")).rename(target)


def tested(server: str, sources: Path, python: Path, select: str) -> Outcomes:
    """Runs all suites with a server, and returns what came of each test."""
    found: Outcomes = {}
    plugins = sources.parent / "plugins"  # benchmarks/ has a bentoml.py
    plugins.mkdir(exist_ok=True)
    shutil.copy(PLUGIN, plugins)
    environ = {**os.environ, "PYTHONPATH": str(plugins)}
    for suite in SUITES:
        print(f"{suite} with {server}", file=sys.stderr, flush=True)
        report = sources.parent / "report.xml"
        report.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="bentoml-home-") as home:
            subprocess.run(
                [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", select,
                 f"--junitxml={report}", *SERVERS[server], suite],
                cwd=sources, env={**environ, "BENTOML_HOME": home}, stdin=subprocess.DEVNULL,
                stdout=sys.stderr, timeout=SUITE_SECONDS, check=False,
            )  # fmt: skip
        if not report.exists():
            sys.exit(f"pytest wrote no report of {suite}")
        found |= outcomes(report.read_text())
    return found


def outcomes(report: str) -> Outcomes:
    """Reads pytest's report in the format of JUnit."""
    found: Outcomes = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        parts = case.get("classname", "").split(".")
        folder, file = "/".join(parts[1:-1]).removesuffix("/tests"), parts[-1]
        name = f"{folder}: {file}.{case.get('name')}"
        found[name] = next(
            (said for tag, said in TAGS.items() if case.find(tag) is not None), "passed"
        )
    return found


def worse(columns: dict[str, Outcomes]) -> list[str]:
    """Returns the tests that pass with BentoML, and with servd do not."""
    if len(columns) < len(SERVERS):
        return []
    bentoml, servd = columns["BentoML"], columns["servd"]
    return [name for name, said in bentoml.items() if said == "passed" != servd.get(name)]


def page(columns: dict[str, Outcomes], facts: list[str]) -> str:
    """Returns the page: what was run, and a table with a row for each test."""
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    lines = [
        "# BentoML's own tests",
        "",
        INTRODUCTION,
        "",
        *(f"- {fact}" for fact in facts),
        *(f"- Left out: `{word}`, {why}" for word, why in LEFT_OUT.items()),
        "",
        f"| test | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in names:
        cells = [found.get(name, "not run") for found in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = [list(found.values()).count("passed") for found in columns.values()]
    shown = [f"{total} of {len(names)}" for total in totals]
    return "\n".join([*lines, f"| **passed** | {' | '.join(shown)} |", ""])


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of Python and of packages in an environment."""
    code = (
        "import importlib.metadata, platform, sys\n"
        "print('python', platform.python_version())\n"
        "for name in sys.argv[1:]: print(name, importlib.metadata.version(name))"
    )
    argv = [str(python), "-c", code, *packages]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} lacks a package: benchmarks/README.md says what it needs")
    return dict(line.split() for line in done.stdout.splitlines())


def about(options: argparse.Namespace) -> list[str]:
    """Returns what was run: the commits, the machine, the versions and the command."""
    found = versions(options.python, PACKAGES)
    python = found.pop("python")
    if options.sources is not None:
        source = f"commit {machine.commit(options.sources)}"
    else:
        source = f"the source distribution of {found['bentoml']}"
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    return [
        f"Commit {machine.commit()}, {time.strftime('%Y-%m-%d', time.gmtime())}, `{command()}`",
        f"Tests of BentoML: {source}",
        f"{len(os.sched_getaffinity(0))} CPUs ({machine.cpu_model()}), Linux {platform.release()}",
        f"Versions: python {python}, {shown}",
    ]


def command() -> str:
    """Returns the command, without the folders of this machine."""
    shown = [os.path.basename(each) if os.path.isabs(each) else each for each in sys.argv[1:]]
    return shlex.join(["bentoml_tests.py", *shown])


if __name__ == "__main__":
    main()
