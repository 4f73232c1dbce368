"""The command line, ``recon``. Every command imports what is heavy inside its own function."""

from recon_toolkit.cli.app import main

__all__ = ["main"]
