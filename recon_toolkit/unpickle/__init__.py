"""Reading files of ``torch.save`` without executing anything in them."""

from recon_toolkit.unpickle.machine import Foreign
from recon_toolkit.unpickle.torch_file import read_torch_file

__all__ = ["Foreign", "read_torch_file"]
