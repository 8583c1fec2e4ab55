"""The kernels, one module each: ports, registers, files, and how many cycles a call takes."""
