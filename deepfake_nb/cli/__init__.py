"""`deepfake-nb`, the command line."""

from .commands import main
from .options import build_parser

__all__ = ["build_parser", "main"]
