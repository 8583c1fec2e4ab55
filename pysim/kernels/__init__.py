"""The accelerator's engines, bit for bit, one module each.

Activations are int64 arrays whatever their hardware width: the width is a bound that each kernel enforces
when it produces a value, not a storage type.
"""
