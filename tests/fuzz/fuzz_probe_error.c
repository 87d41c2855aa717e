#include "tests/fuzz/probe_frame_fuzz.h"

PROBE_FRAME_TARGET(PROBE_ERROR)
