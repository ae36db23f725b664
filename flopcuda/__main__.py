"""``python -m flopcuda`` is ``flopcuda``."""

from flopcuda.cli import main

main()
