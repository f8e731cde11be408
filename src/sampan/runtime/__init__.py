"""The container runtime: plans, the launcher, monitors and what runs inside a container first."""
