"""Doctests are collected from every file of the package; some need what may not be there."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["sklstm/kernels/triton_*.py"]
