"""``python -m sandyard.cli``: the command line where its script is not installed."""

from sandyard.cli import main

main()
