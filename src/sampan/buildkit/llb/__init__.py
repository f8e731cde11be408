"""Graphs of LLB, BuildKit's low-level builder, on the solver's own means.

Spec: spec/buildkit/solver/pb/ops.proto. A client sends a :class:`~sampan.buildkit.llb.graph.Graph`
of sources, programs, file actions, merges and differences; a
:class:`~sampan.buildkit.llb.solver.Solver` makes each vertex once, its layers by the build cache.
"""
