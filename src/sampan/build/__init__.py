"""Build images from Dockerfiles: parse and plan (pure), then solve through an executor."""
