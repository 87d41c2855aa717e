#include "core/log.h"
#include "probes/backend_cuda_priv.h"

#include <assert.h>
#include <string.h>

#define WORKSPACE_BYTES ((size_t)32 << 20) /* what NVIDIA asks for on Hopper; less suffices elsewhere */

/* -- buffers -- */

void cuda_chain_free(struct probe_backend *backend)
{
    struct cuda_chain *chain = &backend->chain;
    struct gpu *gpu = &backend->gpu;
    cu_pointer *all[] = {&chain->a,       &chain->x,       &chain->y,       &chain->table,        &chain->digests,
                         &chain->tree.at, &chain->sums[0], &chain->sums[1], &chain->workspace[0], &chain->workspace[1]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        gpu_free(gpu, all[i]);
    *chain = (struct cuda_chain){0};
}

static size_t sums_bytes_of(const struct cuda_route *route)
{
    return route->route == PROBE_ROUTE_CUBLASLT_S8 ? (size_t)route->n * route->blocks * route->width * sizeof(int32_t)
                                                   : 0;
}

static size_t workspace_bytes_of(const struct cuda_route *route)
{
    size_t most = 0;
    for (unsigned i = 0; i < route->gemm.algorithms; i++)
        most = route->gemm.algorithm[i].workspace_bytes > most ? route->gemm.algorithm[i].workspace_bytes : most;
    return most;
}

static enum error buffers_alloc(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps)
{
    struct cuda_chain *chain = &backend->chain;
    struct gpu *gpu = &backend->gpu;
    const uint32_t n = route->n, blocks = route->blocks;
    const size_t sums_bytes = sums_bytes_of(route), workspace_bytes = workspace_bytes_of(route);
    const size_t side = n, x_bytes = side * side * blocks;
    const size_t chunks = kernel_row_chunks(n * blocks);
    enum error error = gpu_alloc(gpu, side * side, &chain->a);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, x_bytes, &chain->x);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, x_bytes, &chain->y);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, side * steps * sizeof(uint16_t), &chain->table);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, side * chunks * PROBE_HASH_BYTES, &chain->digests);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, (size_t)kernel_tree_nodes(n) * PROBE_HASH_BYTES, &chain->tree.at);
    for (size_t i = 0; i < GPU_STREAMS && sums_bytes > 0 && error == ERR_NONE; i++) {
        error = gpu_alloc(gpu, sums_bytes, &chain->sums[i]);
        if (error == ERR_NONE && workspace_bytes > 0)
            error = gpu_alloc(gpu, workspace_bytes, &chain->workspace[i]);
    }
    if (error != ERR_NONE) {
        cuda_chain_free(backend);
        return error;
    }
    chain->n = n;
    chain->blocks = blocks;
    chain->steps = steps;
    chain->tree.count = n;
    return ERR_NONE;
}

/* Buffers for that many steps of the route's shape; those of the last chain where they fit, since making them takes
 * time that the gateway measures. */
static enum error buffers_make(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps)
{
    struct cuda_chain *chain = &backend->chain;
    const size_t sums_bytes = sums_bytes_of(route);
    if (chain->n == route->n && chain->blocks == route->blocks && chain->steps >= steps &&
        (sums_bytes == 0 || chain->sums[0] != 0)) {
        chain->rows = 0;
        return ERR_NONE;
    }
    cuda_chain_free(backend);
    enum error error = buffers_alloc(backend, route, steps);
    if (error == ERR_NO_MEMORY && backend->tiles.at != 0) {
        cuda_tiles_free(backend);
        error = buffers_alloc(backend, route, steps);
    }
    return error;
}

/* -- routes -- */

/* Columns of each block in one product: as many as keep its int32 sums in their bounds and leave work for two streams,
 * in equal parts so that one plan serves all. */
static uint32_t width_of(uint32_t n, uint32_t blocks)
{
    const uint32_t units = n / 64;
    uint32_t best = 1;
    for (uint32_t width = 1; width <= units; width++)
        if (units % width == 0 && (uint64_t)width * 64 * blocks * n * sizeof(int32_t) <= CHAIN_SUMS_BYTES_MAX &&
            width * GPU_STREAMS <= units)
            best = width;
    return best * 64;
}

/* All blocks in one call or, where the library has no such kernel, one after the other. */
static enum error library_plan(struct probe_backend *backend, uint32_t n, uint32_t blocks, struct cuda_route *ret)
{
    const uint32_t width = width_of(n, blocks);
    struct gemm_shape shape = {.type = GEMM_S8,
                               .m = n,
                               .n = width,
                               .k = n,
                               .batch = blocks,
                               .b_stride = (uint64_t)n * n,
                               .c_stride = (uint64_t)width * n};
    struct gemm gemm;
    enum error error = gemm_plan(backend->blas, &shape, WORKSPACE_BYTES, &gemm);
    if (error == ERR_NOT_FOUND && blocks > 1) {
        shape.batch = 1;
        error = gemm_plan(backend->blas, &shape, WORKSPACE_BYTES, &gemm);
    }
    if (error == ERR_NONE)
        *ret = (struct cuda_route){
            .n = n, .blocks = blocks, .route = PROBE_ROUTE_CUBLASLT_S8, .gemm = gemm, .width = width};
    return error;
}

static struct cuda_route *route_keep(struct probe_backend *backend, const struct cuda_route *route)
{
    struct cuda_route *slot = &backend->routes[backend->routes_next];
    backend->routes_next = (backend->routes_next + 1) % CUDA_ROUTES_MAX;
    gemm_free(&slot->gemm);
    *slot = *route;
    return slot;
}

static const struct cuda_route *route_find(struct probe_backend *backend, uint32_t n, uint32_t blocks)
{
    for (size_t i = 0; i < CUDA_ROUTES_MAX; i++)
        if (backend->routes[i].n == n && backend->routes[i].blocks == blocks)
            return &backend->routes[i];
    struct cuda_route route = {.n = n, .blocks = blocks, .route = backend->own_route};
    if (backend->preferred == PROBE_ROUTE_CUBLASLT_S8 && library_plan(backend, n, blocks, &route) != ERR_NONE)
        log_info(NULL, "cuBLASLt has no int8 product for n = %u, %u blocks; own kernel", n, blocks);
    return route_keep(backend, &route);
}

void cuda_routes_free(struct probe_backend *backend)
{
    for (size_t i = 0; i < CUDA_ROUTES_MAX; i++) {
        gemm_free(&backend->routes[i].gemm);
        backend->routes[i] = (struct cuda_route){0};
    }
}

/* -- steps -- */

static cu_pointer table_at(const struct cuda_chain *chain, uint32_t step)
{
    return chain->table + (cu_pointer)step * chain->n * sizeof(uint16_t);
}

static enum error own_steps_queue(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps)
{
    const struct cuda_chain *chain = &backend->chain;
    const bool is_mma = route->route == PROBE_ROUTE_MMA_S8;
    const enum cuda_kernel kernel = is_mma ? CUDA_probe_chain_mma : CUDA_probe_chain_dp4a;
    const uint32_t grid =
        is_mma ? kernel_chain_mma_grid(chain->n, chain->blocks) : kernel_chain_dp4a_grid(chain->n, chain->blocks);
    enum error error = ERR_NONE;
    for (uint32_t t = 0; t < steps && error == ERR_NONE; t++) {
        struct kernel_chain_step step = {.a_at = chain->a,
                                         .x_at = t % 2 == 0 ? chain->x : chain->y,
                                         .next_at = t % 2 == 0 ? chain->y : chain->x,
                                         .table_at = table_at(chain, t),
                                         .n = chain->n,
                                         .blocks = chain->blocks};
        error = cuda_queue(backend, kernel, grid, 0, &step);
    }
    return error;
}

/* One step of the columns first .. of every block: a product into the stream's sums, and the epilogue. */
static enum error part_queue(struct probe_backend *backend, const struct cuda_route *route, size_t lane, uint32_t first,
                             uint32_t t)
{
    const struct cuda_chain *chain = &backend->chain;
    const cu_pointer from = t % 2 == 0 ? chain->x : chain->y, to = t % 2 == 0 ? chain->y : chain->x;
    for (uint32_t block = 0; block < chain->blocks; block += route->gemm.shape.batch) {
        const cu_pointer x = from + ((cu_pointer)block * chain->n + first) * chain->n;
        const cu_pointer sums = chain->sums[lane] + (cu_pointer)block * route->width * chain->n * sizeof(int32_t);
        if (gemm_run(&route->gemm, route->algorithm, chain->a, x, sums, chain->workspace[lane],
                     backend->gpu.stream[lane]) != ERR_NONE) {
            gpu_give_up(&backend->gpu, "cuBLASLt refused a product that it had planned");
            return ERR_SYSTEM;
        }
    }
    struct kernel_chain_epilogue epilogue = {.sums_at = chain->sums[lane],
                                             .next_at = to,
                                             .table_at = table_at(chain, t),
                                             .n = chain->n,
                                             .blocks = chain->blocks,
                                             .first = first,
                                             .width = route->width};
    return cuda_queue(backend, CUDA_probe_chain_epilogue, backend->sms * KERNEL_CHAIN_EPILOGUE_PER_SM, lane, &epilogue);
}

/* Columns of one place within their blocks form a chain of their own: a step moves whole blocks only. So each stream
 * takes its part of the columns through all steps, and one's epilogue runs while the other's product does. */
static enum error library_steps_queue(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps)
{
    struct gpu *gpu = &backend->gpu;
    const uint32_t n = route->n, width = route->width;
    enum error error = gpu_order(gpu, gpu->stream[0], gpu->stream[1]);
    for (uint32_t first = 0; first < n && error == ERR_NONE; first += GPU_STREAMS * width)
        for (uint32_t t = 0; t < steps && error == ERR_NONE; t++)
            for (uint32_t lane = 0; lane < GPU_STREAMS && first + lane * width < n && error == ERR_NONE; lane++)
                error = part_queue(backend, route, lane, first + lane * width, t);
    return error == ERR_NONE ? gpu_order(gpu, gpu->stream[1], gpu->stream[0]) : error;
}

static enum error steps_queue(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps)
{
    return route->route == PROBE_ROUTE_CUBLASLT_S8 ? library_steps_queue(backend, route, steps)
                                                   : own_steps_queue(backend, route, steps);
}

/* -- a whole chain -- */

static enum error rows_queue(struct probe_backend *backend, const uint32_t seed[8], uint32_t domain, uint32_t columns,
                             cu_pointer to)
{
    struct kernel_chain_rows rows = {.out_at = to, .domain = domain, .rows = backend->chain.n, .columns = columns};
    memcpy(rows.seed, seed, sizeof rows.seed);
    return cuda_queue(backend, CUDA_probe_chain_rows, backend->sms * KERNEL_CHAIN_ROWS_PER_SM, 0, &rows);
}

static enum error transpose_queue(struct probe_backend *backend, cu_pointer from, cu_pointer to, uint32_t rows,
                                  uint32_t columns)
{
    struct kernel_chain_transpose transpose = {.in_at = from, .out_at = to, .rows = rows, .columns = columns};
    return cuda_queue(backend, CUDA_probe_chain_transpose, backend->sms * KERNEL_CHAIN_TRANSPOSE_PER_SM, 0, &transpose);
}

/* A, X_0 (into x) and the table of that many steps. */
static enum error start_queue(struct probe_backend *backend, const uint32_t seed[8], uint32_t steps)
{
    const struct cuda_chain *chain = &backend->chain;
    const uint32_t n = chain->n, columns = n * chain->blocks;
    struct kernel_chain_table table = {.out_at = chain->table, .n = n, .blocks = chain->blocks, .steps = steps};
    memcpy(table.seed, seed, sizeof table.seed);
    enum error error = rows_queue(backend, seed, PROBE_DOMAIN_CHAIN_A, n, chain->a);
    if (error == ERR_NONE)
        error = rows_queue(backend, seed, PROBE_DOMAIN_CHAIN_X, columns, chain->y);
    if (error == ERR_NONE)
        error = transpose_queue(backend, chain->y, chain->x, n, columns);
    return error == ERR_NONE
               ? cuda_queue(backend, CUDA_probe_chain_table, backend->sms * KERNEL_CHAIN_ROWS_PER_SM, 0, &table)
               : error;
}

/* Rows of X_L, their leaves and their tree. */
static enum error end_queue(struct probe_backend *backend, const struct probe_chain *asked)
{
    struct cuda_chain *chain = &backend->chain;
    const uint32_t n = chain->n, columns = n * chain->blocks;
    const cu_pointer last = asked->steps % 2 == 0 ? chain->x : chain->y;
    const cu_pointer rows = asked->steps % 2 == 0 ? chain->y : chain->x;
    struct kernel_row_chunks chunks = {.bytes_at = rows, .digests_at = chain->digests, .rows = n, .columns = columns};
    struct kernel_row_leaves leaves = {
        .digests_at = chain->digests, .leaves_at = chain->tree.at, .rows = n, .chunks = kernel_row_chunks(columns)};
    probe_context(asked->challenge, asked->worker_key, 0, chunks.context);
    memcpy(leaves.context, chunks.context, sizeof leaves.context);
    enum error error = transpose_queue(backend, last, rows, columns, n);
    if (error == ERR_NONE)
        error = cuda_queue(backend, CUDA_probe_row_chunks, backend->sms * KERNEL_ROW_CHUNKS_PER_SM, 0, &chunks);
    if (error == ERR_NONE)
        error = cuda_queue(backend, CUDA_probe_row_leaves, (n + 63) / 64, 0, &leaves);
    if (error == ERR_NONE)
        error = cuda_tree_queue(backend, &chain->tree, 0, 0);
    chain->rows = error == ERR_NONE ? rows : 0;
    return error;
}

enum error cuda_chain_run(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                          enum probe_route *ret_route)
{
    enum error error = gpu_enter(&backend->gpu);
    if (error != ERR_NONE)
        return error;
    backend->chain.rows = 0;
    if (chain->n == 0 || chain->n % 64 != 0 || chain->blocks == 0 || chain->blocks > UINT8_MAX || chain->steps == 0)
        return ERR_BAD_INPUT;
    const struct cuda_route *route = route_find(backend, chain->n, chain->blocks);
    const struct cuda_route own = {.n = chain->n, .blocks = chain->blocks, .route = backend->own_route};
    error = buffers_make(backend, route, chain->steps);
    if (error == ERR_NO_MEMORY && route->route != own.route) { /* it needs no sums */
        route = &own;
        error = buffers_make(backend, route, chain->steps);
    }
    if (error == ERR_NONE)
        error = start_queue(backend, chain->seed, chain->steps);
    if (error == ERR_NONE)
        error = steps_queue(backend, route, chain->steps);
    if (error == ERR_NONE)
        error = end_queue(backend, chain);
    if (error == ERR_NONE)
        error = cuda_tree_root(backend, &backend->chain.tree, ret_root);
    if (error != ERR_NONE) {
        cuda_chain_free(backend);
        return error;
    }
    *ret_route = route->route;
    return ERR_NONE;
}

enum error cuda_chain_open(struct probe_backend *backend, uint32_t row, struct buf *bytes, struct buf *path)
{
    const struct cuda_chain *chain = &backend->chain;
    const size_t columns = (size_t)chain->n * chain->blocks, bytes_was = bytes->len, path_was = path->len;
    if (chain->rows == 0 || row >= chain->n)
        return ERR_BAD_INPUT;
    enum error error = gpu_enter(&backend->gpu);
    if (error == ERR_NONE)
        error = gpu_read_buf(&backend->gpu, bytes, chain->rows + row * columns, columns);
    if (error == ERR_NONE)
        error = cuda_tree_path(backend, &chain->tree, row, path);
    if (error != ERR_NONE) {
        bytes->len = bytes_was;
        path->len = path_was;
    }
    return error;
}

/* -- speed -- */

/* Any: random data only because power, and so clocks, depend on it. */
static const uint32_t sample_seed[8] = {0x73616d70, 0x6c65};

static enum error steps_time(struct probe_backend *backend, const struct cuda_route *route, uint32_t steps,
                             double *ret_tops)
{
    double seconds = 0;
    enum error error = buffers_make(backend, route, steps);
    if (error == ERR_NONE)
        error = start_queue(backend, sample_seed, steps);
    if (error == ERR_NONE)
        error = steps_queue(backend, route, 1); /* the first use of a kernel sets it up */
    if (error == ERR_NONE)
        error = gpu_clock_start(&backend->gpu);
    if (error == ERR_NONE)
        error = steps_queue(backend, route, steps);
    if (error == ERR_NONE)
        error = gpu_clock_end(&backend->gpu, &seconds);
    if (error == ERR_NONE)
        *ret_tops = seconds > 0 ? 2.0 * route->n * route->n * route->n * route->blocks * steps / seconds / 1e12 : 0;
    return error;
}

enum error cuda_chain_rate(struct probe_backend *backend, uint32_t n, uint32_t blocks, uint32_t steps, double *ret_tops)
{
    const enum error error = gpu_enter(&backend->gpu);
    return error != ERR_NONE ? error : steps_time(backend, route_find(backend, n, blocks), steps, ret_tops);
}

/* One product by that algorithm, in seconds; 0: the library refuses it. */
static enum error algorithm_time(struct probe_backend *backend, const struct cuda_route *route, unsigned algorithm,
                                 double *ret_seconds)
{
    const struct cuda_chain *chain = &backend->chain;
    struct gpu *gpu = &backend->gpu;
    double seconds = 0;
    enum error error = ERR_NONE;
    for (int run = 0; run < 2 && error == ERR_NONE; run++) { /* the second one counts */
        error = gpu_clock_start(gpu);
        if (error != ERR_NONE)
            break;
        if (gemm_run(&route->gemm, algorithm, chain->a, chain->x, chain->sums[0], chain->workspace[0],
                     gpu->stream[0]) != ERR_NONE) {
            *ret_seconds = 0;
            return ERR_NONE;
        }
        error = gpu_clock_end(gpu, &seconds);
    }
    *ret_seconds = seconds;
    return error;
}

/* The library's algorithms one by one; the fastest is kept in the route. ERR_NOT_FOUND: it refuses them all. */
static enum error algorithms_time(struct probe_backend *backend, struct cuda_route *route)
{
    double best_s = 0;
    enum error error = buffers_make(backend, route, 2);
    if (error == ERR_NONE)
        error = start_queue(backend, sample_seed, 1);
    for (unsigned i = 0; i < route->gemm.algorithms && error == ERR_NONE; i++) {
        double seconds = 0;
        error = algorithm_time(backend, route, i, &seconds);
        if (seconds > 0 && (best_s <= 0 || seconds < best_s)) {
            best_s = seconds;
            route->algorithm = i;
        }
    }
    return error == ERR_NONE && best_s <= 0 ? ERR_NOT_FOUND : error;
}

/* The largest of the shapes that gateways ask for that a device of this size gets through in a few milliseconds. */
static enum error shape_tune(struct probe_backend *backend, uint32_t n, uint32_t blocks)
{
    struct cuda_route own = {.n = n, .blocks = blocks, .route = backend->own_route}, library = {0};
    double own_tops = 0, library_tops = 0;
    enum error error = steps_time(backend, &own, 2, &own_tops);
    if (error != ERR_NONE)
        return error;
    if (backend->blas != NULL && library_plan(backend, n, blocks, &library) == ERR_NONE) {
        error = algorithms_time(backend, &library);
        if (error == ERR_NONE)
            error = steps_time(backend, &library, 2, &library_tops);
        if (error != ERR_NONE) { /* no memory for its sums, or no use of the library: the device itself still works */
            gemm_free(&library.gemm);
            library = (struct cuda_route){0};
            library_tops = 0;
        }
    }
    const bool is_library =
        library_tops > 0 &&
        (backend->wanted == PROBE_ROUTE_COUNT ? library_tops > own_tops : backend->wanted == library.route);
    if (!is_library)
        gemm_free(&library.gemm);
    (void)route_keep(backend, is_library ? &library : &own);
    backend->preferred = is_library ? library.route : own.route;
    backend->tuned_n = n;
    backend->tuned_blocks = blocks;
    log_info(NULL, "GPU %d: int8 products by %s; own kernel %.0f TOPS, cuBLASLt %u %.0f TOPS (n = %u, %u blocks)",
             backend->gpu.device, probe_route_name(backend->preferred), own_tops,
             backend->blas != NULL ? cublaslt_version(backend->blas) : 0, library_tops, n, blocks);
    return backend->gpu.is_dead ? ERR_SYSTEM : ERR_NONE;
}

enum error cuda_chain_tune(struct probe_backend *backend)
{
    static const struct {
        uint32_t sms_min, n, blocks;
    } shapes[] = {{64, 8192, 8}, {16, 4096, 4}, {8, 1024, 4}, {0, 64, 1}};
    enum error error = ERR_NO_MEMORY;
    cuda_chain_free(backend);
    cuda_routes_free(backend);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && error == ERR_NO_MEMORY; i++)
        if (backend->sms >= shapes[i].sms_min)
            error = shape_tune(backend, shapes[i].n, shapes[i].blocks);
    cuda_chain_free(backend);
    return error;
}
