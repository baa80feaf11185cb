"""Contrast (arXiv 2409.17954): which tokens a row keeps."""

from foci.methods.contrast.method import Contrast

__all__ = ["Contrast"]
