#include "probes/cuda_driver.h"

#include "core/log.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL_ROW(name, symbol, parameters) {symbol, offsetof(struct cuda_driver, name), 0},
static const struct library_call driver_calls[] = {CUDA_DRIVER_CALLS(CALL_ROW)};

/* One driver in a process: libcuda keeps its own state behind it, so that a second table would be no second driver. */
static struct {
    pthread_mutex_t lock;
    bool is_tried, is_there;
    struct cuda_driver table;
    void *library;
    char path[512]; /* "": not overridden */
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

int library_resolve(void *library, const struct library_call *calls, size_t count, void *table)
{
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, calls[i].symbol);
        if (symbol == NULL && !calls[i].is_optional) {
            log_warn(NULL, "the library lacks %s", calls[i].symbol);
            return 0;
        }
        memcpy((char *)table + calls[i].offset, &symbol, sizeof symbol);
    }
    return 1;
}

static bool driver_open(void)
{
    const char *from_environment = secure_getenv("SLUICE_LIBCUDA");
    const char *path = shared.path[0] != 0                                    ? shared.path
                       : from_environment != NULL && from_environment[0] != 0 ? from_environment
                                                                              : "libcuda.so.1";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        log_debug(NULL, "no CUDA driver: %s", dlerror());
        return false;
    }
    char text[128];
    int count = 0;
    cu_result result = CU_OK;
    if (!library_resolve(library, driver_calls, sizeof driver_calls / sizeof driver_calls[0], &shared.table)) {
        log_warn(NULL, "the CUDA driver %s is not one that is understood", path);
        goto out;
    }
    result = shared.table.init(0);
    if (result == CU_OK)
        result = shared.table.device_count(&count);
    if (result != CU_OK || count < 1) {
        log_info(NULL, "the CUDA driver offers no device: %s", cuda_driver_text(&shared.table, result, text));
        goto out;
    }
    shared.library = library;
    return true;
out:
    dlclose(library);
    return false;
}

const struct cuda_driver *cuda_driver_get(void)
{
    (void)pthread_mutex_lock(&shared.lock);
    if (!shared.is_tried) {
        shared.is_tried = true;
        shared.is_there = driver_open();
    }
    const struct cuda_driver *driver = shared.is_there ? &shared.table : NULL;
    (void)pthread_mutex_unlock(&shared.lock);
    return driver;
}

void cuda_driver_set_library(const char *path)
{
    (void)pthread_mutex_lock(&shared.lock);
    if (shared.library != NULL)
        dlclose(shared.library);
    shared.library = NULL;
    shared.is_tried = shared.is_there = false;
    (void)snprintf(shared.path, sizeof shared.path, "%s", path != NULL ? path : "");
    (void)pthread_mutex_unlock(&shared.lock);
}

const char *cuda_driver_text(const struct cuda_driver *driver, cu_result result, char ret[static 128])
{
    const char *name = NULL, *text = NULL;
    if (driver->error_name(result, &name) != CU_OK || name == NULL)
        (void)snprintf(ret, 128, "error %d", result);
    else if (driver->error_string(result, &text) != CU_OK || text == NULL)
        (void)snprintf(ret, 128, "%s", name);
    else
        (void)snprintf(ret, 128, "%s (%s)", name, text);
    return ret;
}
