"""``bake``: many builds described in one file, in HCL, JSON or compose's YAML (pure)."""
