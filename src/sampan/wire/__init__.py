"""The Docker Engine API's objects as typed structs: the engine's vocabulary at its edge."""
