"""The command `hybridfleet`: hands over to one of its programs. Imports a program only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.errors import InputError

#: command -> (module with `main(argv) -> exit status`, what it does)
COMMANDS = {
    "run": ("scenarios.run", "simulate a scenario; with --multirun, many"),
    "compare": (
        "scenarios.compare",
        "routers, techniques or applications on common seeds: means, paired intervals, ties",
    ),
    "capacity": (
        "scenarios.capacity",
        "the highest rate held at the SLO, with N and N - 1 replicas; its kW, USD, g",
    ),
    "validate": ("scenarios.validate", "compare with measurements of real engines"),
    "calibrate": ("scenarios.calibrate", "fit an xPU's coefficients, of timing or of power, to measurements"),
    "reproduce": ("scenarios.reproduce", "run a published study, and say which of its claims hold"),
    "size": ("scenarios.size", "how many xPUs training, fine-tuning and inference of a model need"),
    "lifecycle": (
        "scenarios.lifecycle",
        "what a model takes from data to decommissioning, and when inference overtakes training",
    ),
    "breakeven": ("scenarios.breakeven", "from which volume rent or own hardware costs less than an API"),
    "list": ("scenarios.listing", "what can be chosen, with sources: xpus, models, routers, workloads, fleets, ..."),
    "describe": ("scenarios.describe", "what a trace or workload holds: rate, burstiness, lengths, prefixes, turns"),
    "export": ("scenarios.export", "a run as an inventory after the GHG Protocol's scopes"),
    "import-model": ("scenarios.import_model", "turn a Hugging Face config.json into a model entry"),
}
EXIT_INPUT, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print("hybridfleet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; leave nothing for the interpreter to flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def fail(error: InputError, label: str = "") -> int:
    """Print an error of the user's on one line and return the exit status for it."""
    from scenarios.schema import one_line

    print(f"hybridfleet: error: {label}{one_line(error)}", file=sys.stderr)
    return EXIT_INPUT


def usage() -> str:
    """What the command can do."""
    lines = [f"  {name:<14}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hybridfleet COMMAND [ARGUMENTS]",
            "",
            "Simulates hybrid LLM serving fleets: quality of experience, cost and carbon in one run.",
            "",
            "commands:",
            *lines,
            "",
            "hybridfleet COMMAND --help tells more; hybridfleet --version names the version.",
        ]
    )


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in ("-V", "--version"):
        from importlib.metadata import version

        print(f"hybridfleet {version('hybridfleet')}")
        return 0
    # Imported here: help and version answer at once, without the simulator.
    from scenarios.schema import nearest
    from sim.errors import InputError

    try:
        if command not in COMMANDS:
            raise InputError("command", command, f"{nearest(command, COMMANDS)}{' | '.join(COMMANDS)}")
        return int(importlib.import_module(COMMANDS[command][0]).main(rest))
    except InputError as error:
        return fail(error)


if __name__ == "__main__":
    sys.exit(main())
