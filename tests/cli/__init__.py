"""The `scaffold` command as a person meets it: a subprocess, or a real terminal."""
