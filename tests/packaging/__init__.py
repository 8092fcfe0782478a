"""The files around a rendered service: image, Compose, workflow, manifests, key scan."""
