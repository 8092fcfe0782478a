"""The `scaffold` command: parses, calls Copier, prints. What it asks is in `copier.yml`."""
