"""libnftables(3): run nft(8) scripts in this process, each one atomic transaction.

No process is started and no rule is parsed twice; the library and its one context are loaded on
first use, in the network namespace of the thread that does so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

from sampan.kernel.descriptors import LOW

_SONAME = "libnftables.so.1"
#: Room for what other threads open between the check and the library's own socket.
_MARGIN = 64
_OUTPUT_JSON = 1 << 4
_OUTPUT_NUMERIC = (1 << 6) | (1 << 7) | (1 << 8) | (1 << 9)


class NftError(OSError):
    """A script was refused; nothing of it has been carried out. ``strerror`` is nft's text."""


class Nftables:
    """One libnftables context, bound to the network namespace it was opened in. Open it early,
    while descriptor numbers are low (see :mod:`sampan.kernel.descriptors`), and keep it.

    May be used from several threads; scripts run one after the other.
    """

    def __init__(self) -> None:
        """Raises :class:`OSError` when the library is not installed or the kernel refuses."""
        self._lib = _load()
        _check_descriptors()
        self._lock = threading.Lock()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.ENOMEM, "nft_ctx_new failed")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        """Free the context; idempotent."""
        with self._lock:
            if self._context:
                self._lib.nft_ctx_free(self._context)
                self._context = None

    def run(self, script: str) -> str:
        """Carry out ``script`` (nft syntax), all or nothing; returns what it prints.

        Raises :class:`NftError` with nft's first message.
        """
        with self._lock:
            if not self._context:
                raise OSError(errno.EBADF, "nftables context is closed")
            failed = self._lib.nft_run_cmd_from_buffer(self._context, script.encode())
            output = self._lib.nft_ctx_get_output_buffer(self._context) or b""
            errors = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            message = errors.decode(errors="replace").strip().partition("\n")[0]
            raise NftError(errno.EINVAL, message or "nftables refused the transaction")
        return str(output.decode())

    def query(self, command: str) -> str:
        """The JSON (libnftables-json(5)) that a ``list`` command prints; as :meth:`run`."""
        with self._lock:
            previous = self._lib.nft_ctx_output_get_flags(self._context)
            self._lib.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON | _OUTPUT_NUMERIC)
        try:
            return self.run(command)
        finally:
            with self._lock:
                if self._context:
                    self._lib.nft_ctx_output_set_flags(self._context, previous)


def _check_descriptors() -> None:
    """Refuse where the library would end the process: it select(2)s on its socket."""
    number = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(number)
    if number >= LOW - _MARGIN:
        raise OSError(errno.EMFILE, f"libnftables needs a descriptor below {LOW}")


def _load() -> ctypes.CDLL:
    lib = ctypes.CDLL(_SONAME)
    context = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    lib.nft_ctx_new.restype = context
    lib.nft_ctx_free.argtypes = (context,)
    lib.nft_ctx_free.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(lib, name).argtypes = (context,)
        getattr(lib, name).restype = ctypes.c_int
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).argtypes = (context,)
        getattr(lib, name).restype = ctypes.c_char_p
    lib.nft_run_cmd_from_buffer.argtypes = (context, ctypes.c_char_p)
    lib.nft_run_cmd_from_buffer.restype = ctypes.c_int
    lib.nft_ctx_output_get_flags.argtypes = (context,)
    lib.nft_ctx_output_get_flags.restype = ctypes.c_uint
    lib.nft_ctx_output_set_flags.argtypes = (context, ctypes.c_uint)
    lib.nft_ctx_output_set_flags.restype = None
    return lib
