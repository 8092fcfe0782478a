"""The ASGI factory, for a server that is started by hand: `uvicorn --factory app.main:create_app`.

`python -m app` is the supported way; it checks the environment before any port is opened.
"""

from .api.asgi import Gateway
from .configuration import load_configuration
from .guardrails.environment.startup import InvalidEnvironment
from .service import Service


def create_app() -> Gateway:
    """Exits with a list of what is wrong when the environment is not fit to serve."""
    try:
        return Service(load_configuration()).app()
    except InvalidEnvironment as error:
        raise SystemExit(str(error)) from None
