"""Code of board and laptop alike: errors, hostile files, pictures, heads, the contract of build and host.

Everything here but `toml` goes along with a build: Python 3.10, numpy and Pillow are enough.
"""
