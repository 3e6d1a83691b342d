"""Model-free methods to compare with."""

from momalit.baselines.bc import BCModule

__all__ = ["BCModule"]
