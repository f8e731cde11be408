"""Graphs of LLB, written by hand: each vertex by its digest, as clients marshal them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from sampan.buildkit.protocol import ops_pb2 as ops


@dataclass
class Writer:
    """Collects vertexes; each method returns the input that stands for an output of the new one."""

    written: list[bytes] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, op: ops.Op, *inputs: ops.Input, name: str = "", index: int = 0) -> ops.Input:
        op.inputs.extend(inputs)
        data = op.SerializeToString(deterministic=True)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if data not in self.written:
            self.written.append(data)
        if name:
            self.names[digest] = name
        return ops.Input(digest=digest, index=index)

    def source(self, identifier: str, **attributes: str) -> ops.Input:
        named = {key.replace("_", "."): value for key, value in attributes.items()}
        return self.add(ops.Op(source=ops.SourceOp(identifier=identifier, attrs=named)))

    def run(
        self,
        root: ops.Input | None,
        script: str,
        *mounts: ops.Mount,
        name: str = "",
        **more: object,
    ) -> ops.Input:
        """A script of the shell on a root; further mounts name their inputs from 1 on."""
        inputs = [*([root] if root else []), *more.pop("inputs", [])]  # type: ignore[misc]
        op = ops.ExecOp(
            meta=ops.Meta(args=["/bin/sh", "-ec", script], cwd="/"),
            mounts=[ops.Mount(dest="/", input=0 if root else -1, output=0), *mounts],
            **more,  # type: ignore[arg-type]
        )
        return self.add(ops.Op(exec=op), *inputs, name=name)

    def files(self, *actions: ops.FileAction, inputs: tuple[ops.Input, ...] = ()) -> ops.Input:
        """Actions one after another, on the first input or on nothing."""
        count = len(inputs)
        for number, action in enumerate(actions):
            action.input = count + number - 1 if number else (0 if inputs else -1)
            if number == 0 and action.secondaryInput == 0 and action.WhichOneof("action") == "copy":
                action.input = -1
            action.output = 0 if number == len(actions) - 1 else -1
        return self.add(ops.Op(file=ops.FileOp(actions=actions)), *inputs)

    def merge(self, *inputs: ops.Input) -> ops.Input:
        taken = [ops.MergeInput(input=number) for number in range(len(inputs))]
        return self.add(ops.Op(merge=ops.MergeOp(inputs=taken)), *inputs)

    def diff(self, lower: ops.Input, upper: ops.Input) -> ops.Input:
        op = ops.DiffOp(lower=ops.LowerDiffInput(input=0), upper=ops.UpperDiffInput(input=1))
        return self.add(ops.Op(diff=op), lower, upper)

    def definition(self, target: ops.Input) -> ops.Definition:
        """The graph whose result is ``target``."""
        last = ops.Op(inputs=[target]).SerializeToString(deterministic=True)
        found = ops.Definition()
        getattr(found, "def").extend([*self.written, last])
        for digest, name in self.names.items():
            found.metadata[digest].description["llb.customname"] = name
        return found


def made(path: str, text: str, mode: int = 0o644) -> ops.FileAction:
    """A file."""
    said = ops.FileActionMkFile(path=path, data=text.encode(), mode=mode, timestamp=-1)
    return ops.FileAction(secondaryInput=-1, mkfile=said)


def directory(path: str, mode: int = 0o755, *, parents: bool = True) -> ops.FileAction:
    """A directory."""
    said = ops.FileActionMkDir(path=path, mode=mode, makeParents=parents, timestamp=-1)
    return ops.FileAction(secondaryInput=-1, mkdir=said)


def removed(path: str, *, wildcard: bool = False) -> ops.FileAction:
    """Something gone."""
    return ops.FileAction(secondaryInput=-1, rm=ops.FileActionRm(path=path, allowWildcard=wildcard))


def copied(source: str, destination: str, **more: object) -> ops.FileAction:
    """A copy from the second input."""
    said = ops.FileActionCopy(
        src=source,
        dest=destination,
        mode=-1,
        timestamp=-1,
        followSymlink=True,
        dirCopyContents=True,
        createDestPath=True,
        allowWildcard=True,
        **more,  # type: ignore[arg-type]
    )
    return ops.FileAction(secondaryInput=1, copy=said)
