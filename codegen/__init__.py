"""Hardware projects of a Design: lowering, rendering, compiling, estimating."""
