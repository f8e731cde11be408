"""Each guard of archives and registries cut out in turn: the attack on it must then succeed.

A test of an attack proves nothing when something else than the guard stops it. Here the package is
copied without the guard (tests/security/runtime/mutants.py says why so), and the attacks are run
against the copy: every one named must fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security.runtime.mutants import SOURCE, Cut

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")

ARCHIVES = "tests/security/test_archives.py"
CLIENT = "tests/security/registry/test_client.py"
INTERRUPTED = "tests/security/registry/test_interrupted.py"
REFUSED = f"{ARCHIVES}::test_layer_is_refused[Whiteouts.OVERLAY-"
#: What a test says that fails because the code is broken, not because it lets the attack pass.
BROKEN = re.compile(r"\b(Name|Syntax|Import|ModuleNotFound|UnboundLocal)Error\b")
#: So that no copy is tested by mistake: loaded by pytest, which finds it in the copy.
CHECK = """
import sampan.errors
assert sampan.errors.__file__.startswith({tree!r}), sampan.errors.__file__
"""


@dataclass(frozen=True)
class Mutant:
    """The ``cuts`` made, and the tests that fail then."""

    fails: tuple[str, ...]
    cuts: tuple[Cut, ...]


def never(file: str, condition: str) -> Cut:
    """The line ``if CONDITION:`` in the file never holds."""
    return Cut(file, f"if {condition}:\n", "if False:\n")


BENEATH = "openat2(root, path, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)"
ANYWHERE = Cut("layer/names.py", BENEATH, "openat2(root, path, flags, 0)")
UNBOUND = tuple(
    never(file, condition)
    for file, condition in (
        ("registry/repository.py", "len(reply.body) > MAX_MANIFEST"),
        ("registry/session.py", "len(body) > limit"),
    )
)
UNVERIFIED = (
    never("content/store.py", "expected is not None and digest != expected"),
    never("content/store.py", "wanted is not None and wanted != digest"),
    never("content/store.py", "self._size is not None and self.offset + count > self._size"),
    never("content/store.py", "self._size is not None and self.offset != self._size"),
    never("registry/repository.py", "actual != digest"),
)

MUTANTS = {
    "names-with-dots": Mutant(
        (f"{REFUSED}dotdot]", f"{REFUSED}dotdot-inside]", f"{REFUSED}dotdot-harmless]"),
        (never("layer/names.py", 'b".." in parts'), ANYWHERE),
    ),
    "links-out": Mutant(
        (
            *(
                f"{REFUSED}{name}]"
                for name in (
                    "through-link-dotdot",
                    "through-link-absolute",
                    "directory-through-link",
                    "whiteout-through-link",
                    "opaque-through-link",
                    "hard-link-through-link",
                )
            ),
            f"{ARCHIVES}::test_image_is_refused_and_nothing_kept[through-link-absolute]",
            f"{ARCHIVES}::test_replaced_directory_is_not_written_through",
        ),
        (ANYWHERE,),
    ),
    "files-written-through-links": Mutant(
        (f"{ARCHIVES}::test_link_in_place_of_a_file_is_replaced",),
        (Cut("layer/extract.py", "os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW", "os.O_CREAT"),),
    ),
    "directories-remembered": Mutant(
        (f"{ARCHIVES}::test_replaced_directory_is_not_written_through",),
        (never("layer/extract.py", "directory or stat.S_ISLNK(status.st_mode)"),),
    ),
    "overlay-marks": Mutant(
        (f"{ARCHIVES}::test_overlay_marks_cannot_be_smuggled_in",),
        (never("layer/extract.py", "key.startswith(HOST_XATTRS)"),),
    ),
    "bombs": Mutant(
        (
            *(
                f"{ARCHIVES}::test_bombs[{name}]"
                for name in ("entries", "size", "gzip", "zstd", "sparse")
            ),
            f"{ARCHIVES}::test_a_bomb_does_not_fill_the_disk",
        ),
        (
            never("layer/reader.py", "self.entries > self._limits.entries"),
            never("layer/reader.py", "self._expanded > self._limits.expanded"),
            never("layer/source.py", "self.count > limits.size"),
            Cut("layer/source.py", "self.count > limits.ratio_from\n", "False\n"),
        ),
    ),
    "bombs-of-any-room": Mutant(
        (f"{ARCHIVES}::test_a_bomb_does_not_fill_the_disk",),
        (Cut("layer/model.py", "min(self.ratio_from, room - room // 10)", "self.ratio_from"),),
    ),
    "truncated-streams": Mutant(
        tuple(f"{REFUSED}truncated-{name}]" for name in ("data", "gzip", "zstd", "bzip2")),
        (
            Cut(
                "layer/source.py",
                'raise ArchiveRefused(f"truncated {compression} stream")',
                "return",
            ),
            never("layer/source.py", "not fresh"),
            Cut(
                "layer/source.py",
                'raise ArchiveRefused("truncated tar: it ends in the middle of a file")',
                "return",
            ),
        ),
    ),
    "checksums": Mutant(
        (f"{REFUSED}bad-checksum]",),
        (never("layer/entry.py", "actual != expected and _signed_sum(block) != expected"),),
    ),
    "digests-of-layers": Mutant(
        (
            f"{ARCHIVES}::test_layer_digest_is_verified_on_the_way",
            f"{ARCHIVES}::test_diff_id_mismatch_keeps_nothing",
        ),
        (
            never("layer/apply.py", "digest is not None and incoming.digest != digest"),
            never("layer/apply.py", "diff_id is not None and actual != diff_id"),
            never("image/bundle.py", "actual != announced"),
        ),
    ),
    "digests-and-sizes-from-registries": Mutant(
        (
            *(
                f"{CLIENT}::test_a_layer_that_is_not_what_its_digest_says[{name}]"
                for name in ("other", "longer")
            ),
            f"{CLIENT}::test_a_manifest_that_is_not_what_its_digest_says",
            f"{CLIENT}::test_a_configuration_that_is_not_what_its_digest_says",
        ),
        UNVERIFIED,
    ),
    "endless-manifests": Mutant((f"{CLIENT}::test_an_endless_manifest_is_cut_off",), UNBOUND),
    "endless-indexes": Mutant(
        (f"{CLIENT}::test_indexes_without_end_are_refused",),
        (Cut("registry/pull.py", "range(_MAX_DEPTH)", "range(100)"),),
    ),
    "credentials-in-redirects": Mutant(
        (f"{CLIENT}::test_credentials_do_not_follow_redirects_to_another_host",),
        (
            Cut(
                "registry/session.py",
                'name.lower() not in ("authorization", "cookie")',
                'name.lower() not in ("cookie",)',
            ),
        ),
    ),
    "challenges-of-others": Mutant(
        (f"{CLIENT}::test_credentials_do_not_follow_redirects_to_another_host",),
        (Cut("registry/session.py", "if _place(request.url) == _place(origin):\n", "if True:\n"),),
    ),
    "addresses-in-manifests": Mutant(
        (f"{CLIENT}::test_addresses_of_foreign_layers_get_no_credentials",),
        (never("registry/session.py", "_place(request.url) != _place(self.base)"),),
    ),
    "plain-realms": Mutant(
        (
            "tests/unit/registry/test_conversations.py"
            "::test_an_https_registry_cannot_send_the_password_to_a_plain_realm",
        ),
        (Cut("registry/auth.py", 'return realm.scheme == "https" or', "return True or"),),
    ),
    "redirects": Mutant(
        (
            f"{CLIENT}::test_redirects_out_of_http_are_refused[http://u:p@127.0.0.1:1/]",
            f"{CLIENT}::test_a_registry_reached_by_https_does_not_redirect_to_http",
            f"{CLIENT}::test_a_list_may_not_continue_on_another_host",
        ),
        (
            Cut("registry/session.py", " or after.username:\n", ":\n"),
            never("registry/session.py", 'before.scheme == "https" and after.scheme == "http"'),
            never("registry/repository.py", "urlsplit(url)[:2] != urlsplit(self.session.base)[:2]"),
        ),
    ),
    "certificates": Mutant(
        (f"{CLIENT}::test_a_certificate_of_a_man_in_the_middle",),
        (Cut("registry/tls.py", "        if insecure:\n", "        if True:\n"),),
    ),
    "words-of-registries": Mutant(
        (f"{CLIENT}::test_errors_do_not_carry_credentials_or_control_characters",),
        (Cut("registry/http.py", 'char if char.isprintable() else " " for', "char for"),),
    ),
    "signatures": Mutant(
        (
            "tests/security/registry/test_signatures.py"
            "::test_pulls_demand_the_signature_that_pushes_attach",
            "tests/security/registry/test_signatures.py::test_pulls_demand_a_notation_signature",
        ),
        (
            Cut(
                "registry/signatures.py",
                "        if reason:\n            raise Forbidden",
                "        if False:\n            raise Forbidden",
            ),
        ),
    ),
    "pages": Mutant(
        ("tests/conformance/registry/test_features.py::test_pages",),
        (Cut("registry/server/pages.py", "Markup(escape(str(value)))", "Markup(str(value))"),),
    ),
    "partial-bytes-not-verified": Mutant(
        (f"{INTERRUPTED}::test_killed_anywhere",),
        (
            Cut(
                "content/store.py",
                "            self._hash.update(chunk)\n            self._advance",
                "            self._advance",
            ),
        ),
    ),
    "work-done-twice": Mutant(
        (
            "tests/conformance/registry/test_client.py"
            "::test_pulls_at_the_same_time_fetch_a_blob_once",
        ),
        (
            Cut(
                "registry/download.py",
                "transfer = self._running.get(digest)\n",
                "transfer = None\n",
            ),
        ),
    ),
    "downloads-from-the-start": Mutant(
        (
            "tests/conformance/registry/test_client.py"
            "::test_a_download_given_up_goes_on_at_the_next_pull",
        ),
        (
            Cut(
                "content/store.py",
                "                self._resume()\n",
                "                self.truncate()\n",
            ),
        ),
    ),
}


def build(directory: Path, mutant: Mutant) -> Path:
    """Where to import the mutant from: its own copy of what is cut, the rest as it is."""
    tree = directory / "code"
    package = tree / "sampan"
    package.mkdir(parents=True)
    cut = {item.file.partition("/")[0] for item in mutant.cuts}
    for source in SOURCE.iterdir():
        if source.name in cut:
            shutil.copytree(source, package / source.name)
        elif source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    for item in mutant.cuts:
        path = package / item.file
        text = path.read_text()
        assert text.count(item.old) == 1, f"{item.file} has no single {item.old!r}: guard moved?"
        path.write_text(text.replace(item.old, item.new))
    (tree / "mutantcheck.py").write_text(CHECK.format(tree=str(tree)))
    return tree


@pytest.mark.parametrize("name", MUTANTS)
def test_without_its_guard_the_attack_succeeds(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    tree = build(tmp_path, mutant)
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", "-p", "mutantcheck"]
    command += ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}", *mutant.fails]
    result = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    failed = re.findall(r"^FAILED (\S+?)(?: - .*)?$", result.stdout, re.MULTILINE)
    assert result.returncode == 1, result.stdout + result.stderr
    assert set(failed) == set(mutant.fails), result.stdout
    assert not BROKEN.search(result.stdout), result.stdout
