"""Checks of generated HLS C++ for what g++ cannot see: pragmas, the tool's subset of C++, dependences."""

from codegen.hls_check.checks import check_project
from codegen.hls_check.findings import Finding

__all__ = ["Finding", "check_project"]
