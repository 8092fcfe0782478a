"""`python -m scaffold_cli`, for where the console script is not on the PATH."""

from .main import main

main()
