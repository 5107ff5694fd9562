"""`python -m dinomx_core` is `dinomx`."""

from dinomx_core.cli import main

main()
