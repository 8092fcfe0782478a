"""Services with edits in them, carried from one version of the template to the next."""
