/* Any text gives settings or an error that names the file, and nothing leaks. */
#include "tests/fuzz/fuzz.h"

#include "gateway/settings.h"

#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[] = "/tmp/fuzz_settings_XXXXXX", error[CONFIG_ERROR_MAX] = "";
    struct settings settings;
    struct str text = {(const char *)data, size};
    /* Secrets would read whatever file the text names. */
    for (size_t i = 0; i + 5 <= size; i++) {
        if (memcmp(data + i, "file:", 5) == 0)
            return 0;
    }
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len);
    close(fd);
    if (settings_load(path, &settings, error) == ERR_NONE) {
        CHECK(settings.listen.host[0] && settings.threads >= 0 && settings.threads <= 256);
        CHECK(settings_check(&settings, error) == ERR_NONE);
    } else {
        CHECK(strncmp(error, path, strlen(path)) == 0);
    }
    settings_free(&settings);
    unlink(path);
    return 0;
}
