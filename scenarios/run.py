"""`hybridfleet run`: compose, build, simulate, write the run folder, print the table. Once, or for a whole sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from scenarios import cli
from scenarios.compose import Job, compose
from scenarios.progress import reporter
from scenarios.settings import unused_folder
from sim.errors import InputError

if TYPE_CHECKING:
    from scenarios.build import Scenario

CONF = Path(__file__).resolve().parents[1] / "conf"
_EPILOG = """\
Overrides are Hydra's: seed=3, router=cloud_only, fleet.sites.cloud.pools.cloud.replicas=4.
`hybridfleet list routers` (workloads, fleets, slos, xpus, models, grids, links, hosts) lists what a group can be.

Every key of the default scenario:

"""


class Program:
    """One call of the command: what it was asked, when, and what it has done so far.

    Attributes:
        saved: folders of the runs that are whole.
        failures: how many runs were refused.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.search = [arguments.config_dir] if arguments.config_dir else []
        self.started = datetime.now(UTC)
        self.saved: list[Path] = []
        self.failures = 0
        self._sweep_folder: Path | None = None

    def run(self, job: Job) -> None:
        """Do one run; an error of the user's is reported, and a sweep goes on with its next run."""
        label = "" if job.number is None else f"run {job.number} ({self._swept(job)}): "
        try:
            self._run(job, label)
        except InputError as error:
            self.failures += 1
            cli.fail(error, label)

    def _run(self, job: Job, label: str) -> None:
        from scenarios.build import build

        config = job.resolve()
        check_plugins(config.get("plugins"), job.overrides)
        scenario = build(config, self.search)
        out = self._folder(scenario, job)
        summary = simulate(scenario, out, config, job.overrides, self.started, label)
        self.saved.append(out)
        _print_summary(summary, out, label)

    def _swept(self, job: Job) -> str:
        """This run's values of what the sweep varies: overrides that name several, or a function such as range()."""
        varied = {text.partition("=")[0] for text in self.arguments.overrides if "," in text or "(" in text}
        return " ".join(text for text in job.overrides if text.partition("=")[0] in varied)

    def _folder(self, scenario: Scenario, job: Job) -> Path:
        """Where the run goes; refuses a folder that exists before anything is simulated."""
        from scenarios.store import check_out

        settings = scenario.settings
        if job.number is None:
            name = settings.name or "-".join(job.choices.get(group, "own") for group in ("workload", "fleet", "router"))
            out = settings.out or unused_folder(name, self.started)
            check_out(out)
            return out
        if self._sweep_folder is None:
            self._sweep_folder = settings.out or unused_folder(settings.name or "sweep", self.started)
            check_out(self._sweep_folder)
        out = self._sweep_folder / str(job.number)
        check_out(out)
        return out


def simulate(
    scenario: Scenario, out: Path, config: dict[str, Any], overrides: Sequence[str], started: datetime, label: str = ""
) -> dict[str, Any]:
    """Simulate a scenario, write its run folder `out` and return its summary."""
    from scenarios.store import write_run

    settings = scenario.settings
    with reporter(settings.progress, label) as progress:
        result = scenario.run(progress)
    try:
        return write_run(
            out,
            result,
            config,
            overrides=overrides,
            inputs=scenario.inputs,
            provenance=scenario.kinds,
            started=started,
            figures=settings.figures,
            report=settings.report,
            terms=settings.economics,
        )
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


def main(argv: Sequence[str]) -> int:
    """Run the command `hybridfleet run` and return its exit status."""
    parser = _parser()
    arguments = parser.read(argv)
    if arguments.help:
        print(parser.format_help() + (CONF / "config.yaml").read_text("utf-8"))
        return 0
    program = Program(arguments)
    try:
        compose(arguments, program.run)
    except KeyboardInterrupt:
        saved = ", ".join(str(folder) for folder in program.saved) or "nothing"
        print(f"hybridfleet: interrupted; saved: {saved}", file=sys.stderr)
        return cli.EXIT_INTERRUPTED
    return cli.EXIT_INPUT if program.failures else 0


class _Parser(argparse.ArgumentParser):
    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read the command line; options may stand between overrides.

        Raises:
            InputError: an option that does not exist, lacks its value, or does not go with the others.
        """
        self._given = list(argv)
        arguments = self.parse_intermixed_args(self._given)
        if (arguments.resolve or arguments.package) and not arguments.cfg:
            self.error("--resolve and --package go with --cfg")
        if arguments.cfg and arguments.multirun:
            self.error("--cfg does not go with --multirun")
        return arguments

    def error(self, message: str) -> NoReturn:
        raise InputError("arguments", " ".join(self._given), f"what `hybridfleet run --help` lists ({message})")


def _parser() -> _Parser:
    parser = _Parser(
        prog="hybridfleet run",
        description="Simulate a scenario and leave a run folder with tables, summary and report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the default scenario")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over the values a,b,c of overrides")
    parser.add_argument("-cd", "--config-dir", type=Path, metavar="DIR", help="folder with YAML files of your own")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"), help="print the configuration; do not run")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: replace interpolations")
    parser.add_argument("-p", "--package", metavar="KEY", help="with --cfg: only this part")
    parser.add_argument("-h", "--help", action="store_true", help="show this and stop")
    return parser


def check_plugins(plugins: object, overrides: Sequence[str]) -> None:
    """A downloaded scenario must not be able to trust itself: only the command line names plug-in packages."""
    if plugins and not any(override.lstrip("+").startswith("plugins=") for override in overrides):
        raise InputError("plugins", plugins, "packages named on the command line, plugins=[...], not in a file")


def _print_summary(summary: dict[str, Any], out: Path, label: str) -> None:
    from analysis.table import print_table

    if label:
        print(label.rstrip())
    print_table(summary)
    print(f"Results: {out}")


if __name__ == "__main__":
    sys.exit(cli.main(["run", *sys.argv[1:]]))
