"""Kernels that are reached through files instead of ports.

A free port can be taken by another process before the kernel for which it was chosen listens on it;
of many notebooks executed side by side, one then does not start.
"""

import tempfile
import uuid
from pathlib import Path

from jupyter_client import AsyncKernelManager, KernelManager
from jupyter_client.connect import ConnectionFileMixin
from traitlets import default


class _ThroughFiles(ConnectionFileMixin):
    @default("transport")
    def _through_files(self):
        return "ipc"

    @default("ip")
    def _a_file_of_its_own(self):
        return str(Path(tempfile.gettempdir(), f"kernel-{uuid.uuid4().hex}"))


class FileKernelManager(_ThroughFiles, KernelManager):
    """Starts kernels that nothing but files connects to."""


class AsyncFileKernelManager(_ThroughFiles, AsyncKernelManager):
    """The same, for nbclient and papermill."""
