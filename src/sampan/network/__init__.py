"""Container networks: address management and plans (pure), drivers, ports, names."""
