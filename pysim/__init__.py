"""Bit-accurate simulation of quantised multi-task mixture-of-experts Vision Transformers.

Import from the modules: `pysim.formats` needs numpy only, so that host code on a board can use it.
"""
