"""Log drivers that send a container's output elsewhere, and how to add one.

The story: a container's monitor writes a bounded cache in the ``local`` format and never waits for
anybody. sampand's :class:`~sampan.engine.logforwarding.Forwarder` reads the cache from where it
stopped, in order, and hands messages to a :class:`LogSink` that a :class:`LogDriver` opened::

    driver.check(options)                  # at create; InvalidParameter names what is wrong
    sink = await driver.open(info)         # at start; OSError fails the start
    await sink.send(messages)              # OSError: the sink is closed, another opened, and the
                                           # same messages are sent again
    await sink.aclose()

Every message is sent at least once, also across restarts of sampand; what the cache had to give
up before it could be sent is counted and lost. A driver of somebody else's is a callable without
parameters that returns a :class:`LogDriver`, under the entry point group ``sampan.log_drivers``,
the entry point's name being the driver's.
"""

from sampan.engine.logdrivers.model import (
    LogDriver,
    LogInfo,
    LogMessage,
    LogSink,
    Piece,
    Retry,
)

__all__ = ["LogDriver", "LogInfo", "LogMessage", "LogSink", "Piece", "Retry"]
