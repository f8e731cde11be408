"""Programs of other makers that offer volume, network and address drivers.

They speak Docker's plugin protocol (version 1): JSON over HTTP on a socket found in a directory.
"""
