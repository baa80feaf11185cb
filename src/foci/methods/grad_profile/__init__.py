"""Gradient profile (arXiv 2411.04448): how fast each layer may move."""

from foci.methods.grad_profile.method import GradProfile

__all__ = ["GradProfile"]
