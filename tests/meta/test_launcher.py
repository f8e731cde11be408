"""What every process of a container carries along: a copy of what the launcher imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import sampan.runtime.launcher; "

#: Each costs tens to hundreds of memory pages in every process of a container, copied by its fork
#: and given back by its execve, while somebody waits for both.
UNWANTED = {"hashlib", "_hashlib", "pathlib", "ipaddress", "urllib.parse", "subprocess", "asyncio"}
UNWANTED |= {"sampan.runtime.plan", "sampan.runtime.mount_plan", "sampan.runtime.process_plan"}
UNWANTED |= {"sampan.model.oci", "sampan.kernel.facts", "sampan.runtime.requests"}


def test_the_launcher_imports_no_more_than_it_needs() -> None:
    program = IMPORT + "print(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", program, str(SOURCE)]
    found = set(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    assert "sampan.runtime.init" in found
    assert not found & UNWANTED
