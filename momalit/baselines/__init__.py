"""Model-free baselines."""

from momalit.baselines.bc import BCModule
from momalit.baselines.cql import ICQLModule
from momalit.baselines.iql import IQLModule
from momalit.baselines.maiql import MAIQLModule
from momalit.baselines.omar import IOMARModule
from momalit.baselines.td3_bc import ITD3BCModule

__all__ = ["BCModule", "ICQLModule", "IOMARModule", "IQLModule", "ITD3BCModule", "MAIQLModule"]
