"""Every combination of answers, rendered and run; the combinations are read from `copier.yml`."""
