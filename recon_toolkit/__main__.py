"""``python -m recon_toolkit`` is ``recon``."""

from recon_toolkit.cli import main

if __name__ == "__main__":
    main()
