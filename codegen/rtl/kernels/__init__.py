"""The kernels, one module each: ports, registers, files, and how many cycles a call takes."""

from __future__ import annotations

from codegen.architecture import Architecture
from codegen.rtl.kernels.attention import attention_kernel
from codegen.rtl.kernels.base import Kernel
from codegen.rtl.kernels.layernorm import layernorm_kernel
from codegen.rtl.kernels.linear import linear_kernel
from codegen.rtl.kernels.router import router_kernel
from codegen.rtl.kernels.softmax import softmax_kernel
from codegen.rtl.kernels.units import unit_kernels
from common.errors import InputError
from pysim.arithmetic import REQUANTISE


def has_kernels(architecture: Architecture) -> bool:
    """Whether there is RTL for a Design: the original's arithmetic exists in C++ only."""
    return architecture.network.arithmetic is REQUANTISE


def kernels_of(architecture: Architecture) -> dict[str, Kernel]:
    """Every kernel of a Design, by name.

    Raises:
        InputError: a Design of the original's arithmetic.
    """
    if not has_kernels(architecture):
        raise InputError(
            f"precision {architecture.precision.name}: no RTL kernels",
            hint="the original's arithmetic exists as C++ only; choose w16a16 or w8a8",
        )
    kernels = [
        *unit_kernels(architecture),
        softmax_kernel(architecture),
        layernorm_kernel(architecture),
        attention_kernel(architecture),
        linear_kernel(architecture),
    ]
    if architecture.spec.moe_layers:
        kernels.append(router_kernel(architecture))
    return {kernel.name: kernel for kernel in kernels}
