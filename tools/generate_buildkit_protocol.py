"""Generate the Python modules of BuildKit's messages from its protocol files.

    python tools/generate_buildkit_protocol.py SPEC/buildkit src/sampan/buildkit/protocol

Needs ``grpcio-tools`` 1.62, ``mypy-protobuf`` 3.6 and ``googleapis-common-protos`` in the running
Python: that compiler is the last whose modules every later protobuf runtime takes. Files get flat
names, so that their modules are one package of ours; names and numbers of messages stay.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc  # type: ignore[import-not-found]

PACKAGE = "sampan/buildkit/protocol"
SOURCES = {
    "github.com/moby/buildkit/api/services/control/control.proto": "control",
    "github.com/moby/buildkit/api/types/worker.proto": "worker",
    "github.com/moby/buildkit/frontend/gateway/pb/gateway.proto": "gateway",
    "github.com/moby/buildkit/session/auth/auth.proto": "auth",
    "github.com/moby/buildkit/session/filesync/filesync.proto": "filesync",
    "github.com/moby/buildkit/session/secrets/secrets.proto": "secrets",
    "github.com/moby/buildkit/session/sshforward/ssh.proto": "ssh",
    "github.com/moby/buildkit/session/upload/upload.proto": "upload",
    "github.com/moby/buildkit/solver/errdefs/errdefs.proto": "errdefs",
    "github.com/moby/buildkit/solver/pb/ops.proto": "ops",
    "github.com/moby/buildkit/sourcepolicy/pb/policy.proto": "policy",
    "github.com/moby/buildkit/util/apicaps/pb/caps.proto": "caps",
    "github.com/tonistiigi/fsutil/types/stat.proto": "stat",
    "github.com/tonistiigi/fsutil/types/wire.proto": "wire",
}
#: Protocols of which only a part is called, beside this program.
PARTS = {"content": Path(__file__).with_name("content.proto")}
#: Options of another generator.
_DROPPED = re.compile(r'^\s*(import ".*/vtproto/ext\.proto";|option \(vtproto\..*)$', re.MULTILINE)


def _renamed(text: str) -> str:
    for path, name in SOURCES.items():
        text = text.replace(f'import "{path}"', f'import "{PACKAGE}/{name}.proto"')
    return _DROPPED.sub("", text)


def generate(spec: Path, destination: Path) -> None:
    """Write ``*_pb2.py`` and ``*_pb2.pyi`` into ``destination``."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / PACKAGE).mkdir(parents=True)
        inputs = []
        for path, name in SOURCES.items():
            own = path.removeprefix("github.com/moby/buildkit/")
            source = spec / own if own != path else spec / "vendor" / path
            (work / PACKAGE / f"{name}.proto").write_text(_renamed(source.read_text()))
            inputs.append(f"{PACKAGE}/{name}.proto")
        for name, part in PARTS.items():
            (work / PACKAGE / f"{name}.proto").write_text(part.read_text())
            inputs.append(f"{PACKAGE}/{name}.proto")
        common = str(files("grpc_tools") / "_proto")
        rpc = str(Path(status_pb2.__file__).parents[2])
        arguments = ["protoc", f"-I{work}", f"-I{common}", f"-I{rpc}"]
        arguments += [f"--python_out={work}", f"--mypy_out=quiet:{work}"]
        plugin = Path(sys.executable).with_name("protoc-gen-mypy")
        arguments.append(f"--plugin=protoc-gen-mypy={plugin}")
        if protoc.main([*arguments, *inputs]):
            raise SystemExit("protoc failed")
        for made in (work / PACKAGE).glob("*_pb2.py*"):
            (destination / made.name).write_text(made.read_text())


if __name__ == "__main__":
    generate(Path(sys.argv[1]), Path(sys.argv[2]))
