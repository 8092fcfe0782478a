"""What is worth a look keeps no service from starting, and is said where it is looked for."""

from .serving import Project


def test_warnings_are_logged_at_the_start(project: Project) -> None:
    """A line for each, before the service says that it has started."""
    with project.serve(RATE_LIMIT_REQUEST="1") as service:
        warning, started = service.lines("settings_warning", "started")
    assert (warning["level"], warning["variable"]) == ("warning", "RATE_LIMIT_REQUEST")
    assert warning["remedy"] == "is read by nobody; did you mean RATE_LIMIT_REQUESTS?"
    assert started["event"] == "started"
