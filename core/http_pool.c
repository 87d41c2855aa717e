#include "core/http_pool.h"

#include <microhttpd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if MHD_VERSION == 0x00097500

#define ALIGNMENT ((size_t)16)

/* Blocks that may grow lie at the front, those that stay as they are at the end. */
struct MemoryPool {
    char *memory;
    size_t size, pos, end; /* free: [pos, end) */
};

void MHD_init_mem_pools_(void);
struct MemoryPool *MHD_pool_create(size_t size);
void MHD_pool_destroy(struct MemoryPool *pool);
size_t MHD_pool_get_free(struct MemoryPool *pool);
void *MHD_pool_allocate(struct MemoryPool *pool, size_t size, bool from_end);
void *MHD_pool_try_alloc(struct MemoryPool *pool, size_t size, size_t *required);
void *MHD_pool_reallocate(struct MemoryPool *pool, void *old, size_t old_size, size_t new_size);
void *MHD_pool_reset(struct MemoryPool *pool, void *keep, size_t keep_size, size_t new_size);

bool http_pool_is_ours(void)
{
    return true;
}

/* 0 for what is too large to be rounded. */
static size_t aligned(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bool fits(const struct MemoryPool *pool, size_t size)
{
    size_t whole = aligned(size);
    return whole >= size && whole <= pool->end - pool->pos;
}

void MHD_init_mem_pools_(void)
{
}

struct MemoryPool *MHD_pool_create(size_t size)
{
    struct MemoryPool *pool = malloc(sizeof(*pool));
    size = aligned(size);
    if (!pool)
        return NULL;
    /* Pages that are never written to cost nothing: most heads are far smaller than the largest. */
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(pool);
        return NULL;
    }
    *pool = (struct MemoryPool){memory, size, 0, size};
    return pool;
}

void MHD_pool_destroy(struct MemoryPool *pool)
{
    if (!pool)
        return;
    munmap(pool->memory, pool->size);
    free(pool);
}

size_t MHD_pool_get_free(struct MemoryPool *pool)
{
    return pool->end - pool->pos;
}

void *MHD_pool_allocate(struct MemoryPool *pool, size_t size, bool from_end)
{
    if (!fits(pool, size))
        return NULL;
    if (from_end) {
        pool->end -= aligned(size);
        return pool->memory + pool->end;
    }
    char *block = pool->memory + pool->pos;
    pool->pos += aligned(size);
    return block;
}

/* From the end; when that fails, tells how much must be freed at the front for it. */
void *MHD_pool_try_alloc(struct MemoryPool *pool, size_t size, size_t *required)
{
    void *block = MHD_pool_allocate(pool, size, true);
    size_t whole = aligned(size);
    if (!block)
        *required = whole >= size && whole <= pool->end ? whole - (pool->end - pool->pos) : SIZE_MAX;
    return block;
}

/* Of a block at the front. In place if it shrinks or is the last one, else it moves and its old place stays taken. */
void *MHD_pool_reallocate(struct MemoryPool *pool, void *old, size_t old_size, size_t new_size)
{
    size_t at = old ? (size_t)((char *)old - pool->memory) : 0;
    if (old && pool->pos == aligned(at + old_size)) {
        size_t new_pos = aligned(at + new_size);
        if (new_size > old_size && (new_pos < at + new_size || new_pos > pool->end || new_size > pool->size))
            return NULL;
        pool->pos = new_pos;
        return old;
    }
    if (old && new_size <= old_size)
        return old;
    char *block = MHD_pool_allocate(pool, new_size, false);
    if (block && old_size)
        memcpy(block, old, old_size);
    return block;
}

/* Frees all but a first block of new_size, which begins with what is kept. */
void *MHD_pool_reset(struct MemoryPool *pool, void *keep, size_t keep_size, size_t new_size)
{
    if (keep && keep_size)
        memmove(pool->memory, keep, keep_size);
    pool->pos = aligned(new_size);
    pool->end = pool->size;
    return pool->memory;
}

#else

bool http_pool_is_ours(void)
{
    return false;
}

#endif
