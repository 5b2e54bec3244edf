"""``python -m scio.cli`` is ``scio``."""

from scio.cli import main

main()
