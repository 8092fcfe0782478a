"""Plugins, which pytest loads from here alone."""

pytest_plugins = ["tests.matrix.progress"]
