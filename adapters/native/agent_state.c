#include "adapters/native/agent_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_FILE "worker.json"
#define STATE_FILE_NEW "worker.json.new"
#define STATE_BYTES_MAX 4096

static enum error make_dirs(const char *dir)
{
    char path[1024];
    if (!str_copy(path, sizeof(path), str_of(dir)) || !path[0])
        return ERR_BAD_INPUT;
    for (char *at = path + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char was = *at;
        *at = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return ERR_SYSTEM;
        *at = was;
        if (was == '\0')
            return ERR_NONE;
    }
}

static enum error read_identity(int dir_fd, struct agent_state *state)
{
    char bytes[STATE_BYTES_MAX];
    int fd = openat(dir_fd, STATE_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? ERR_NONE : ERR_SYSTEM;
    ssize_t len = read(fd, bytes, sizeof(bytes));
    close(fd);
    if (len < 0)
        return ERR_SYSTEM;
    json_t *root = (size_t)len < sizeof(bytes) ? json_loadb(bytes, (size_t)len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    crypto_wipe(bytes, sizeof(bytes));
    const char *id = NULL, *secret = NULL;
    enum error error = ERR_BAD_INPUT;
    if (root && json_unpack(root, "{s:s, s:s}", "worker_id", &id, "secret", &secret) == 0 && *id && *secret &&
        str_copy(state->worker_id, sizeof(state->worker_id), str_of(id)) &&
        str_copy(state->secret, sizeof(state->secret), str_of(secret)))
        error = ERR_NONE;
    json_decref(root);
    return error;
}

enum error agent_state_open(const char *dir, struct agent_state *ret)
{
    struct agent_state state = {.lock_fd = -1};
    if (!str_copy(state.dir, sizeof(state.dir), str_of(dir)))
        return ERR_TOO_LARGE;
    enum error error = make_dirs(dir);
    if (error)
        return error;
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return ERR_SYSTEM;
    state.lock_fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (state.lock_fd < 0)
        error = ERR_SYSTEM;
    else if (flock(state.lock_fd, LOCK_EX | LOCK_NB) != 0)
        error = errno == EWOULDBLOCK ? ERR_EXISTS : ERR_SYSTEM;
    else
        error = read_identity(dir_fd, &state);
    close(dir_fd);
    if (error) {
        agent_state_close(&state);
        return error;
    }
    *ret = state;
    return ERR_NONE;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

enum error agent_state_save(const struct agent_state *state)
{
    char bytes[STATE_BYTES_MAX];
    json_t *root = json_pack("{s:s, s:s}", "worker_id", state->worker_id, "secret", state->secret);
    size_t len = root ? json_dumpb(root, bytes, sizeof(bytes), JSON_COMPACT) : 0;
    json_decref(root);
    if (len == 0 || len > sizeof(bytes))
        return ERR_NO_MEMORY;
    int dir_fd = open(state->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;
    enum error error = ERR_SYSTEM;
    if (dir_fd >= 0 && (unlinkat(dir_fd, STATE_FILE_NEW, 0) == 0 || errno == ENOENT))
        fd = openat(dir_fd, STATE_FILE_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && write_all(fd, bytes, len) && fsync(fd) == 0 &&
        renameat(dir_fd, STATE_FILE_NEW, dir_fd, STATE_FILE) == 0 && fsync(dir_fd) == 0)
        error = ERR_NONE;
    crypto_wipe(bytes, sizeof(bytes));
    if (fd >= 0)
        close(fd);
    if (dir_fd >= 0)
        close(dir_fd);
    return error;
}

void agent_state_close(struct agent_state *state)
{
    if (state->lock_fd >= 0)
        close(state->lock_fd);
    state->lock_fd = -1;
    crypto_wipe(state->secret, sizeof(state->secret));
}
