"""What this repository promises, from the command line to the rendered service on a socket."""
