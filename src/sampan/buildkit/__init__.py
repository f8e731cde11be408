"""BuildKit's gRPC services in front of the solver: what ``docker buildx`` and compose talk to."""
