"""What the board and the laptop share: errors, hostile files, pictures, heads, and the contract between build and host.

Everything here but `toml` goes along with a build: Python 3.10, numpy and Pillow are enough.
"""
