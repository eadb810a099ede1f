"""`python -m kovar` is the `kovar` command."""

from kovar.cli import main

main()
