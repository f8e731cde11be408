"""Build images from Dockerfiles: plan (pure), then solve through an executor."""
