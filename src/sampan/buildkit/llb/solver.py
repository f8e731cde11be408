"""Evaluate graphs: each vertex once for a build, its layers from the cache where they are known.

A vertex is started when all it takes is there, so what is independent runs at the same time. The
graphs of one build share what they have in common. Cancelling the build cancels all of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from sampan.build.cache import Layer, Record
from sampan.build.imports import find
from sampan.build.keys import graph_key
from sampan.build.progress import Vertex
from sampan.build.tools import Tools
from sampan.buildkit.llb.execs import Client, ExecWork
from sampan.buildkit.llb.files import FileWork
from sampan.buildkit.llb.graph import EMPTY as NOTHING
from sampan.buildkit.llb.graph import Edge, Graph, Node
from sampan.buildkit.llb.merges import difference, stacked
from sampan.buildkit.llb.sources import Sources
from sampan.buildkit.llb.values import EMPTY, Root, Value, together
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.status import Status
from sampan.errors import InvalidParameter, SampanError, Unsupported

#: A copy of everything, as a file operation.
_WHOLE = ops.FileOp(
    actions=[
        ops.FileAction(
            input=NOTHING,
            secondaryInput=0,
            output=0,
            copy=ops.FileActionCopy(
                src="/", dest="/", dirCopyContents=True, createDestPath=True, mode=-1, timestamp=-1
            ),
        )
    ]
)
Outputs = Mapping[int, Value]


@dataclass(slots=True, kw_only=True, eq=False)
class Solver:
    """The graphs of one build. ``latest`` is the latest time files may have (None: any)."""

    tools: Tools
    sources: Sources
    status: Status
    client: Client
    no_cache: bool = False
    latest: int | None = None
    _made: dict[str, asyncio.Task[Outputs]] = field(default_factory=dict)

    async def value(self, graph: Graph, edge: Edge | None = None) -> Value:
        """What an output of a graph is, by default the one that is wanted.

        Raises what the vertexes raise.
        """
        edge = edge or graph.target
        outputs = await asyncio.shield(self._start(graph, graph.nodes[edge.digest]))
        if edge.index not in outputs:
            raise InvalidParameter(f"vertex {edge.digest} has no output {edge.index}")
        return outputs[edge.index]

    async def root(self, graph: Graph) -> Root:
        """The wanted output of a graph as layers."""
        return await self.rooted(await self.value(graph))

    async def rooted(self, value: Value) -> Root:
        """A value as layers."""
        return await self.tools.in_thread(self._rooted, value)

    async def close(self) -> None:
        """Cancel what is still being made, and wait for that."""
        for task in self._made.values():
            task.cancel()
        if self._made:
            await asyncio.wait(self._made.values())

    def _start(self, graph: Graph, node: Node) -> asyncio.Task[Outputs]:
        task = self._made.get(node.digest)
        if task is None:
            inputs = [one.digest for one in node.inputs]
            self.status.announce(node.digest, node.title, inputs)
            task = asyncio.get_running_loop().create_task(self._make(graph, node))
            task.add_done_callback(_looked_at)
            self._made[node.digest] = task
        return task

    async def _make(self, graph: Graph, node: Node) -> Outputs:
        inputs = await asyncio.gather(*(self.value(graph, edge) for edge in node.inputs))
        vertex = Vertex(id=node.digest, name=node.title)
        self.status.started(vertex)
        try:
            outputs, cached = await self._perform(node, inputs)
        except BaseException as error:
            text = str(error) or type(error).__name__
            self.status.completed(vertex, error=text)
            raise
        self.status.completed(vertex, cached=cached)
        return outputs

    async def _perform(self, node: Node, inputs: Sequence[Value]) -> tuple[Outputs, bool]:
        """The outputs of a vertex, and whether all of them were known."""
        op = node.op
        in_thread = self.tools.in_thread
        match op.WhichOneof("op"):
            case "source":
                return {0: await self.sources.fetch(node)}, False
            case "exec":
                return await self._exec(node, inputs)
            case "file":
                done = _Done()
                work = FileWork(
                    op=op.file,
                    inputs=inputs,
                    workspace=self.tools.workspace,
                    hashes=self.tools.hashes,
                    rooted=self._rooted,
                    make=partial(self._changed, node, done),
                )
                return await in_thread(work.outputs), not done.anything
            case "merge":
                values = [inputs[one.input] for one in op.merge.inputs]
                roots = [await self.rooted(value) for value in values]
                return {0: await in_thread(stacked, self.tools.workspace, roots)}, False
            case "diff":
                below, above = op.diff.lower.input, op.diff.upper.input
                lower = EMPTY if below == NOTHING else await self.rooted(inputs[below])
                upper = EMPTY if above == NOTHING else await self.rooted(inputs[above])
                make = partial(self._recorded, node)
                made = await in_thread(difference, self.tools.workspace, lower, upper, make)
                return {0: made}, False
            case "passthrough":
                return dict(enumerate(inputs[index] for index in op.passthrough.outputs)), False
        raise Unsupported("graphs of LLB that hold other graphs (build ops) are not supported")

    # programs

    async def _exec(self, node: Node, inputs: Sequence[Value]) -> tuple[Outputs, bool]:
        work = ExecWork(
            node=node,
            inputs=inputs,
            tools=self.tools,
            status=self.status,
            client=self.client,
            latest=self.latest,
            now=int(time.time()),
        )
        work.check()
        key = await self.tools.in_thread(work.key)
        bases = {number: await self.rooted(value) for number, value in work.bases().items()}
        wanted = [one.output for one in work.outputs]
        found: dict[int, Root] = {}
        for number in wanted:
            known = await self.tools.in_thread(
                self._known, node, graph_key("output", key, str(number)), bases[number], inputs
            )
            if known is not None:
                found[number] = known
        if wanted and len(found) == len(wanted):
            return dict(found), True
        for number, record in (await work.run(bases)).items():
            kept = replace(record, key=graph_key("output", key, str(number)))
            found[number] = self._grown(bases[number], kept, inputs)
            self.tools.cache.store(kept)
        return dict(found), False

    # layers

    def _rooted(self, value: Value) -> Root:
        """A directory's files as a layer. Blocking."""
        if isinstance(value, Root):
            return value
        work = FileWork(
            op=_WHOLE,
            inputs=[value],
            workspace=self.tools.workspace,
            hashes=self.tools.hashes,
            rooted=self._rooted,
            make=partial(self._changed, None, _Done()),
        )
        made = work.outputs()[0]
        assert isinstance(made, Root)
        return made

    def _changed(
        self, node: Node | None, done: _Done, key: str, base: Root, act: Callable[[int], None]
    ) -> Root:
        """The root that ``act`` makes of ``base``, known by ``key``. Blocking."""
        known = self._known(node, key, base, (base,))
        if known is not None:
            return known
        done.anything = True
        workspace = self.tools.workspace
        with workspace.change(base.chain) as change:
            with workspace.writable(change) as root:
                act(root)
            layer = workspace.keep(change, base.chain, self.latest)
        return self._recorded(node, key, base, layer)

    def _recorded(self, node: Node | None, key: str, base: Root, layer: Layer) -> Root:
        record = Record(
            key=key,
            parent=base.key,
            kind="regular",
            description=node.title if node else "files of a directory",
            layer=layer,
            size=layer.descriptor.size,
            created=int(time.time()),
        )
        self.tools.cache.store(record)
        return self._grown(base, record, (base,))

    def _known(
        self, node: Node | None, key: str, base: Root, inputs: Sequence[Value]
    ) -> Root | None:
        """The root a vertex made of ``base`` before, if all of it is still there. Blocking."""
        if self.no_cache or (node is not None and node.ignore_cache):
            return None
        tools = self.tools
        record = tools.cache.find(key, int(time.time()))
        if record is None or record.layer is None or not tools.workspace.present(record.layer):
            record = find(tools.imports, key, base.chain, tools.workspace)
            if record is None or record.layer is None:
                return None
            tools.cache.store(record)
        return self._grown(base, record, inputs)

    def _grown(self, base: Root, record: Record, inputs: Sequence[Value]) -> Root:
        assert record.layer is not None
        below = {one.key: one for one in (*together(inputs), *base.records)}
        return Root(
            key=record.key,
            layers=(*base.layers, record.layer),
            records=(*below.values(), record),
            inherited=base.inherited,
        )


@dataclass(slots=True)
class _Done:
    """Whether anything had to be done."""

    anything: bool = False


def _looked_at(task: asyncio.Task[Outputs]) -> None:
    """An error nobody waits for any more is no news."""
    if not task.cancelled():
        with suppress(SampanError, Exception):
            task.exception()
