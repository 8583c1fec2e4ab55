"""SystemVerilog kernels of a Design: rendering, simulation under cocotb, and their cycles."""
