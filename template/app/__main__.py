"""`python -m app`: check the environment, then serve; `--check` stops after the check.

`python -m app spend` prints what was spent.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import date

from .configuration import load_configuration
from .errors import StoreUnavailable
from .guardrails.environment.startup import Configuration, InvalidEnvironment, variable_name
from .server import serve
from .spend import spend_report
from .wiring import SERVICE, Store

EXIT_NOT_FIT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 when the environment or the store is not fit."""
    arguments = _parse(argv)
    try:
        configuration = load_configuration()
        if arguments.command == "spend":
            return _spend(configuration, arguments)
        asyncio.run(_reach_store(configuration))
    except InvalidEnvironment as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FIT
    except StoreUnavailable as error:
        fields = Store.settings_type.model_fields
        variables = " and ".join(variable_name(Store.settings_type, field) for field in fields)
        reason = f"{error.reason} (check {variables})"
        print(f"The {Store.name} store cannot be reached: {reason}", file=sys.stderr)
        return EXIT_NOT_FIT
    if arguments.check:
        print("The environment is fit to serve.")
        return 0
    serve(configuration)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app", description=f"Serves {SERVICE}.")
    parser.add_argument("--check", action="store_true", help="check the environment, then stop")
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
    return parser.parse_args(argv)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no day; write it like 2026-01-31") from None


def _spend(configuration: Configuration, arguments: argparse.Namespace) -> int:
    if not Store.shared_between_processes:
        print(
            f"{Store.name} storage keeps the ledger in the serving process, where no other can"
            " read it; see llm_cost_usd_total at its /metrics, or choose another storage.",
            file=sys.stderr,
        )
        return EXIT_NOT_FIT
    print(asyncio.run(spend_report(configuration, arguments.day, json=arguments.json)))
    return 0


async def _reach_store(configuration: Configuration) -> None:
    store = Store(configuration.store, SERVICE)
    try:
        await store.open()
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
