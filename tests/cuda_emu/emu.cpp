/* The fibers under the emulated kernels: one for each thread of a block, run in turn until each waits or ends. */
#include "tests/cuda_emu/emu.h"
#include "probes/cuda/kernels.h"
#include "tests/cuda_emu/emulation.hpp"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define DECLARE(name, params, threads, shared) extern "C" void name(const params);
PROBE_KERNELS(DECLARE)

namespace
{

enum { THREADS_MAX = 1024, WARP = 32, LANE_BYTES = 64, STACK_BYTES = 128 * 1024, COPIES_MAX = 64 };

struct kernel {
    const char *name;
    void (*run)(void *params);
    unsigned threads;
    size_t shared_bytes;
};

#define ROW(name, params, threads, shared) {#name, [](void *p) { name(*(const params *)p); }, threads, shared},
const kernel kernels[] = {PROBE_KERNELS(ROW)};

[[noreturn]] void fail(const char *kernel, const char *what)
{
    fprintf(stderr, "cuda emulation: %s: %s\n", kernel, what);
    abort();
}

/* -- Changing stacks. ucontext does it everywhere, at two system calls a change. -------------------------------------
 */

#ifdef __x86_64__

typedef void *context;
extern "C" void emu_switch(void **from, void *to);
__asm__(".text\n.type emu_switch, @function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emu_switch, .-emu_switch\n");

void context_make(context *ret, uint8_t *stack, size_t size, void (*entry)())
{
    void **top = (void **)((uintptr_t)(stack + size) & ~(uintptr_t)15);
    *--top = nullptr; /* entry's return address: it never returns. Keeps the stack aligned as after a call */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    *ret = top;
}

void context_switch(context *from, context *to)
{
    emu_switch(from, *to);
}

#else

typedef ucontext_t context;

void context_make(context *ret, uint8_t *stack, size_t size, void (*entry)())
{
    getcontext(ret);
    ret->uc_stack.ss_sp = stack;
    ret->uc_stack.ss_size = size;
    ret->uc_link = nullptr;
    makecontext(ret, entry, 0);
}

void context_switch(context *from, context *to)
{
    swapcontext(from, to);
}

#endif

/* -- One block --------------------------------------------------------------------------------------------------------
 */

enum class state { RUNS, WAITS_FOR_WARP, WAITS_FOR_BLOCK, ENDED };

struct copy {
    void *to;
    const void *from;
    uint32_t group;
};

struct fiber {
    context at;
    state is;
    uint32_t exchanges, groups; /* done; committed */
    unsigned copies;
    copy pending[COPIES_MAX];
};

struct warp {
    unsigned arrived;
    alignas(16) uint8_t given[2][WARP * LANE_BYTES];
};

struct machine {
    const kernel *running;
    void *params;
    emu_place where;
    context scheduler;
    unsigned threads, at_barrier;
    uint32_t cycles;
    fiber fibers[THREADS_MAX];
    warp warps[THREADS_MAX / WARP];
    std::vector<uint8_t> stacks;
    std::vector<uint4> shared;
};

/* A machine for each thread of the test program that launches something. */
machine &here()
{
    static thread_local std::unique_ptr<machine> mine;
    if (!mine)
        mine.reset(new machine());
    return *mine;
}

void leave(machine &m, state why)
{
    fiber &self = m.fibers[m.where.thread.x];
    self.is = why;
    context_switch(&self.at, &m.scheduler);
}

void enter()
{
    machine &m = here();
    m.running->run(m.params);
    if (m.fibers[m.where.thread.x].copies)
        fail(m.running->name, "a thread ends with copies that it never waited for");
    leave(m, state::ENDED);
    abort();
}

void run_block(machine &m)
{
    m.at_barrier = 0;
    for (unsigned i = 0; i < m.threads / WARP; i++)
        m.warps[i].arrived = 0;
    for (unsigned i = 0; i < m.threads; i++) {
        fiber &f = m.fibers[i];
        f.is = state::RUNS;
        f.exchanges = f.groups = f.copies = 0;
        context_make(&f.at, &m.stacks[(size_t)i * STACK_BYTES], STACK_BYTES, enter);
    }
    for (unsigned ended = 0; ended < m.threads;) {
        bool has_moved = false;
        for (unsigned i = 0; i < m.threads; i++) {
            if (m.fibers[i].is != state::RUNS)
                continue;
            has_moved = true;
            m.where.thread.x = i;
            context_switch(&m.scheduler, &m.fibers[i].at);
            ended += m.fibers[i].is == state::ENDED;
        }
        if (!has_moved)
            fail(m.running->name, "not all threads reach a barrier or a warp operation");
    }
}

} // namespace

const emu_place &emu_where()
{
    return here().where;
}

void *emu_shared()
{
    return here().shared.data();
}

void emu_barrier_block()
{
    machine &m = here();
    if (++m.at_barrier == m.threads) {
        m.at_barrier = 0;
        for (unsigned i = 0; i < m.threads; i++) {
            if (m.fibers[i].is == state::WAITS_FOR_BLOCK)
                m.fibers[i].is = state::RUNS;
        }
        return;
    }
    leave(m, state::WAITS_FOR_BLOCK);
}

const uint8_t *emu_exchange(const void *mine, uint32_t size)
{
    machine &m = here();
    const unsigned self = m.where.thread.x, first = self / WARP * WARP;
    warp &w = m.warps[self / WARP];
    /* Two buffers: a lane can be one exchange ahead of another that still reads, never two. */
    uint8_t *given = w.given[m.fibers[self].exchanges++ % 2];
    memcpy(given + self % WARP * LANE_BYTES, mine, size);
    if (++w.arrived == WARP) {
        w.arrived = 0;
        for (unsigned i = first; i < first + WARP; i++) {
            if (m.fibers[i].is == state::WAITS_FOR_WARP)
                m.fibers[i].is = state::RUNS;
        }
    } else {
        leave(m, state::WAITS_FOR_WARP);
    }
    return given;
}

void emu_copy_start(void *to, const void *from)
{
    machine &m = here();
    fiber &self = m.fibers[m.where.thread.x];
    if (self.copies == COPIES_MAX)
        fail(m.running->name, "more copies under way than the emulator keeps");
    memset(to, 0xa5, 16); /* what is read too early is wrong */
    self.pending[self.copies++] = {to, from, self.groups};
}

void emu_copy_commit()
{
    machine &m = here();
    m.fibers[m.where.thread.x].groups++;
}

void emu_copy_wait(uint32_t left)
{
    machine &m = here();
    fiber &self = m.fibers[m.where.thread.x];
    unsigned kept = 0;
    for (unsigned i = 0; i < self.copies; i++) {
        if (self.pending[i].group + left < self.groups)
            memcpy(self.pending[i].to, self.pending[i].from, 16);
        else
            self.pending[kept++] = self.pending[i];
    }
    self.copies = kept;
}

void emu_check_aligned(const void *at)
{
    if ((uintptr_t)at % 16)
        fail(here().running->name, "an access of 16 bytes is not aligned");
}

uint32_t cycle_count()
{
    return here().cycles += 64;
}

extern "C" const char *emu_kernel_name(unsigned index)
{
    return index < sizeof kernels / sizeof *kernels ? kernels[index].name : nullptr;
}

extern "C" int emu_launch(const char *name, void **params, unsigned grid, unsigned threads, size_t shared_bytes)
{
    const kernel *found = nullptr;
    for (const kernel &k : kernels) {
        if (strcmp(k.name, name) == 0)
            found = &k;
    }
    if (!found)
        return 1;
    if (grid == 0 || threads != found->threads || threads % WARP || shared_bytes != found->shared_bytes)
        return 2;
    machine &m = here();
    m.running = found;
    m.params = params[0];
    m.threads = threads;
    m.where = {{0}, {0}, {threads}, {grid}};
    m.shared.assign(shared_bytes / sizeof(uint4), uint4{0xdeadbeef, 0xdeadbeef, 0xdeadbeef, 0xdeadbeef});
    if (m.stacks.size() < (size_t)threads * STACK_BYTES)
        m.stacks.resize((size_t)threads * STACK_BYTES);
    for (m.where.block.x = 0; m.where.block.x < grid; m.where.block.x++)
        run_block(m);
    return 0;
}

extern "C" void *emu_take(size_t bytes)
{
    return aligned_alloc(256, (bytes + 255) / 256 * 256);
}

extern "C" void emu_give(void *memory)
{
    free(memory);
}

extern "C" unsigned emu_multiprocessors(void)
{
    return EMU_MULTIPROCESSORS;
}
