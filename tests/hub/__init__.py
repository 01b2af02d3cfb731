"""A small Hub on loopback, so tests drive the real Hub clients with no network."""

from .server import LoopbackHub

__all__ = ["LoopbackHub"]
