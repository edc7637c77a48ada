# cython: language_level=3
"""The data of the core, by subject, and what other extension modules may call. A reader starts with these files.

A field marked [log] is stated by records and comes back by replay. [memory] fields are derived from the others or from
the process's own life, and are left out of the state hash. All times are Unix microseconds of the engine's clock.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

include "core/places.pxd"
include "core/jobs.pxd"
include "core/queues.pxd"
include "core/keys.pxd"
include "core/settings.pxd"
include "core/commands.pxd"
include "core/records.pxd"
include "core/tables.pxd"
include "core/tail.pxd"
include "core/core.pxd"
include "core/hot.pxd"
