/* Who is challenged at the same time: devices that may be one and the same under two names. */
#include "gateway/control_proof.h"

void slot_join(struct probe_run *run, bool is_caller)
{
    (void)run;
    (void)is_caller;
}

void slot_arrive(struct proof_device *device)
{
    device->state = DEVICE_RUNS;
    proof_session_go_on(device->session);
}

void slot_leave(struct proof_device *device)
{
    (void)device;
}

void slot_close(struct probe_run *run)
{
    (void)run;
}
