# cython: language_level=3
"""The core's data, by subject, and the functions for other extension modules. Start reading with these files.

Records set the fields marked [log], and replay restores them. Fields marked [memory] are derived from others or belong
to the process; the state hash leaves them out. All times are Unix microseconds of the engine's clock.
"""

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

include "core/places.pxd"
include "core/jobs.pxd"
include "core/queues.pxd"
include "core/traffic.pxd"
include "core/feed.pxd"
include "core/keys.pxd"
include "core/settings.pxd"
include "core/commands.pxd"
include "core/records.pxd"
include "core/tables.pxd"
include "core/tail.pxd"
include "core/core.pxd"
include "core/hot.pxd"
