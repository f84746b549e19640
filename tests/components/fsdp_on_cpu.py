"""Run a component under FSDP2 on CPUs, which accelerate leaves to GPUs: python fsdp_on_cpu.py main.py --flag ..."""

import runpy
import sys
from pathlib import Path

from accelerate import state

_init = state.PartialState.__init__


def init(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    if self.distributed_type == state.DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = state.DistributedType.MULTI_GPU


state.PartialState.__init__ = init
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
