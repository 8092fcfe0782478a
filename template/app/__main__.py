"""`python -m app`: check the environment, then serve; `--check` stops after the check and prints
what it saw.

`python -m app spend` prints what was spent.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import date

from .check import as_json, fit_configuration, print_fit, print_unfit
from .configuration import load_configuration
from .errors import StoreUnavailable
from .guardrails.environment.startup import InvalidEnvironment
from .server import serve
from .spend import spend_report
from .wiring import SERVICE, Store

EXIT_NOT_FIT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 when the environment or the store is not fit."""
    arguments = _parse(argv)
    try:
        if arguments.command == "spend":
            return _spend(arguments)
        configuration = fit_configuration()
    except InvalidEnvironment as error:
        if arguments.check and arguments.json:
            print(as_json(error))
        else:
            print_unfit(error, sys.stderr)
        return EXIT_NOT_FIT
    if not arguments.check:
        serve(configuration)
    elif arguments.json:
        print(as_json(configuration))
    else:
        print_fit(configuration, sys.stdout)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app", description=f"Serves {SERVICE}.")
    parser.add_argument("--check", action="store_true", help="check the environment, then stop")
    parser.add_argument("--json", action="store_true", help="with --check: print JSON")
    commands = parser.add_subparsers(dest="command", metavar="[spend]")
    spend = commands.add_parser(
        "spend",
        help="print who spent what on which model",
        description="Prints who spent what on which model in one day.",
    )
    spend.add_argument(
        "--day", type=_day, help="a day of BUDGET_TIMEZONE, such as 2026-01-31; default: today"
    )
    spend.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if arguments.json and not (arguments.check or arguments.command):
        parser.error("--json goes with --check")
    return arguments


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no day; write it like 2026-01-31") from None


def _spend(arguments: argparse.Namespace) -> int:
    configuration = load_configuration()
    if not Store.shared_between_processes:
        print(
            f"{Store.name} storage keeps the ledger in the serving process, where no other can"
            " read it; see llm_cost_usd_total at its /metrics, or choose another storage.",
            file=sys.stderr,
        )
        return EXIT_NOT_FIT
    try:
        print(asyncio.run(spend_report(configuration, arguments.day, json=arguments.json)))
    except StoreUnavailable as error:
        print(f"The {Store.name} store cannot be reached: {error.reason}", file=sys.stderr)
        return EXIT_NOT_FIT
    return 0


if __name__ == "__main__":
    sys.exit(main())
