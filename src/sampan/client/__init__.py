"""The Docker Engine API as a client: a lean HTTP/1.1 client and a typed Python API on top of it."""
