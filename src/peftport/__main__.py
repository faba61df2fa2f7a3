"""`python -m peftport`: the command line without its script."""

from peftport.cli import main

main()
