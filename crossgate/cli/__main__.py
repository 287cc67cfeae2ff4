"""`python -P -m crossgate.cli`."""

from crossgate.cli import main

main()
