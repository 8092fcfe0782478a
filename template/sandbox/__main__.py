"""`python -m sandbox`: the service as `python -m app` runs it, with stand-ins for all it needs.

What the environment already holds is kept; a `.env` file yields to what is set here.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FrameType

from sandbox.server import Sandbox
from sandbox.stores import place

DEFAULTS = {
    "ENVIRONMENT": "development",
    "HOST": "127.0.0.1",
    "PORT": "8000",
    "SERVICE_API_KEYS": "demo:demo-key",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of the service; 2 without starting it in production."""
    if os.environ.get("ENVIRONMENT", "").strip().lower() == "production":
        print("The sandbox does not run with ENVIRONMENT=production.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _exit)
    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(Sandbox.in_thread())
            _set_environment(sandbox, stack)
            _introduce(sandbox)
            from app.__main__ import main as serve

            return serve(argv)
        except KeyboardInterrupt:
            return 0


def _set_environment(sandbox: Sandbox, stack: ExitStack) -> None:
    _set(sandbox.environment(os.environ))
    _set(stack.enter_context(place(os.environ)))
    _set({variable: os.environ.get(variable) or value for variable, value in DEFAULTS.items()})


def _set(variables: Mapping[str, str]) -> None:
    """In place of the files that the owner's secrets may stand in."""
    os.environ.update(variables)
    for variable in variables:
        os.environ.pop(f"{variable}_FILE", None)


def _introduce(sandbox: Sandbox) -> None:
    keys = os.environ["SERVICE_API_KEYS"]
    key = "demo-key" if keys == DEFAULTS["SERVICE_API_KEYS"] else "<a key of SERVICE_API_KEYS>"
    service = f"http://{os.environ['HOST']}:{os.environ['PORT']}"
    control = f"{sandbox.url}/_sandbox"
    faults = "\n".join(
        f"""  curl {control}/faults -d '{{"vendor": "{name}", "faults": [{{"status": 500}}]}}'"""
        for name in sandbox.vendors
    )
    print(
        f"""Stand-ins for {" and ".join(sandbox.vendors)} answer at {sandbox.url}.
The service, once it is up, answers at {service}:

  curl {service}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"messages": [{{"role": "user", "content": "Hi"}}]}}'

Let a vendor's next call fail (sandbox/faults.py tells how else), and see what arrived:

{faults}
  curl {control}/requests
""",
        flush=True,
    )


def _exit(signum: int, frame: FrameType | None) -> None:
    # Not the default, which would leave the store's files behind.
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
