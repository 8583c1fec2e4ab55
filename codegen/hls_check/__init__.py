"""What g++ cannot see in generated HLS C++: pragmas, the subset of C++ that the tool takes, dependences."""

from codegen.hls_check.checks import check_project
from codegen.hls_check.findings import Finding

__all__ = ["Finding", "check_project"]
