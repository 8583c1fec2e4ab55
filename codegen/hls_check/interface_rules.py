"""Ports of top functions."""

from __future__ import annotations

from codegen.hls_check.findings import Findings, at_pragma
from codegen.hls_check.model import Function

WRITTEN_ONCE = frozenset({"report"})
"""Memory ports that may share a bundle: what they carry is a beat or a few before all else."""


def check_interface(function: Function) -> Findings:
    """Ports of a top function: all named, memory ports complete, a bundle for each."""
    pragmas = [pragma for pragma in function.pragmas if pragma.text.name == "interface"]
    if not pragmas:
        return
    parameters = {parameter.spelling: parameter for parameter in function.parameters}
    named: dict[str, set[str]] = {}
    bundles: dict[str, tuple[str, str]] = {}
    controls: dict[str, str] = {}
    for pragma in pragmas:
        text = pragma.text
        port, mode, bundle = text.clauses.get("port", ""), text.word("mode"), text.clauses.get("bundle", "")
        named.setdefault(port, set()).add(mode)
        if port != "return" and port not in parameters:
            yield at_pragma(text, "interface-port", f"`{port}` is no parameter of {function.name}")
            continue
        if mode == "m_axi":
            for clause in ("bundle", "depth", "offset"):
                if clause not in text.clauses:
                    yield at_pragma(text, "interface-memory", f"m_axi port `{port}` needs `{clause} =`")
            depth = text.clauses.get("depth", "")
            first_port, first_depth = bundles.setdefault(bundle, (port, depth))
            if port != first_port and port not in WRITTEN_ONCE:
                message = (
                    f"bundle `{bundle}` has port `{first_port}`: two ports in a bundle wait for each other"
                )
                yield at_pragma(text, "interface-bundle", message)
            elif depth != first_depth:
                message = (
                    f"bundle `{bundle}` has depth {first_depth}: with another one the tool takes neither"
                )
                yield at_pragma(text, "interface-bundle", message)
        elif mode == "s_axilite":
            controls[bundle] = port
            if len(controls) > 1:
                message = (
                    f"bundle `{bundle}`: the registers are in `{next(iter(controls))}`, and one is enough"
                )
                yield at_pragma(text, "interface-bundle", message)
        elif (
            port in parameters
            and "volatile" in parameters[port].type.spelling
            and "depth" not in text.clauses
        ):
            message = (
                f"volatile port `{port}` needs `depth =`: co-simulation cannot tell how often it is read"
            )
            yield at_pragma(text, "interface-depth", message)
    first = pragmas[0].text
    for name in [*parameters, "return"]:
        if name not in named:
            yield at_pragma(first, "interface-port", f"`{name}` has no interface pragma")
    for port, modes in named.items():
        offset = next((p.text.word("offset") for p in pragmas if p.text.clauses.get("port") == port), "")
        if "m_axi" in modes and offset == "slave" and "s_axilite" not in modes:
            yield at_pragma(first, "interface-port", f"the address of `{port}` needs a register: s_axilite")
