"""Volumes: data that outlives containers, and the mounts that bring it into them."""
