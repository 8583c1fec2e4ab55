"""From a Design to hardware projects: lowering, rendering, compiling, estimating."""
