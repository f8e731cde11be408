"""The asynchronous services under one roof, for :mod:`sampan.engine.blocking`."""

from sampan.engine.builds import Builds
from sampan.engine.containers import Containers
from sampan.engine.events import Events
from sampan.engine.execs import Execs
from sampan.engine.images import Images
from sampan.engine.networks import Networks
from sampan.engine.system import System
from sampan.engine.volumes import Volumes

__all__ = ["Builds", "Containers", "Events", "Execs", "Images", "Networks", "System", "Volumes"]
