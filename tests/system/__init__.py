"""Checks that need Debian's packages, which `.ci/run` installs: `make test-system` runs them."""
