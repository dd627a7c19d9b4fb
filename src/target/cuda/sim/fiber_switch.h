#pragma once
// What the thread sanitizer is told by hand: who runs, and what is ordered.
#include "target/cuda/sim/block.h"

#if ESPALIER_SIM_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

/// Keep the callee's registers on this stack, go on with another (block.cpp).
extern "C" void esp_sim_switch(void** save, void* to);
