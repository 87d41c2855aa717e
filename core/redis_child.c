#include "core/redis_child.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/redis_target.h"
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_MAX_NS (30 * NS_PER_S)
#define ORPHAN_MAX_NS (10 * NS_PER_S)
#define STOP_MAX_NS (10 * NS_PER_S)
#define POLL_NS (5 * NS_PER_MS)
#define SOCKET_NAME "redis.sock"
#define LOG_NAME "redis.log"
#define SERVER_LOCK_FD 3 /* in the child */

struct redis_child {
    char dir[PATH_MAX]; /* absolute */
    char socket[REDIS_SOCKET_PATH_MAX + 1];
    bool fsync_always;
    bool has_died;
    int dir_fd;
    int owner_fd; /* locked while this process has the directory */
    pid_t pid;    /* 0: none */
};

static void pause_for(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};

    nanosleep(&time, NULL);
}

/* Opens and locks a file of the directory; waits at most max_ns for the lock. ERR_BUSY: another has it. */
static enum error lock_open(int dir_fd, const char *name, int64_t max_ns, int *ret_fd)
{
    int64_t until_ns = clock_mono_ns() + max_ns;
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return ERR_SYSTEM;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || clock_mono_ns() >= until_ns) {
            enum error error = errno == EWOULDBLOCK ? ERR_BUSY : ERR_SYSTEM;

            close(fd);
            return error;
        }
        pause_for(POLL_NS);
    }
    *ret_fd = fd;
    return ERR_NONE;
}

/* Runs between fork and exec: only calls that are safe there. */
static _Noreturn void become_server(const struct redis_child *child, int lock_fd, pid_t parent)
{
    char *const argv[] = {"redis-server",
                          "--port",
                          "0",
                          "--unixsocket",
                          SOCKET_NAME, /* relative, so that it fits a socket address */
                          "--unixsocketperm",
                          "700",
                          "--dir",
                          (char *)child->dir,
                          "--appendonly",
                          "yes",
                          "--appendfsync",
                          child->fsync_always ? "always" : "everysec",
                          "--maxmemory-policy",
                          "noeviction",
                          "--save",
                          "",
                          "--daemonize",
                          "no",
                          "--logfile",
                          LOG_NAME,
                          NULL};
    struct sigaction by_default = {.sa_handler = SIG_DFL};
    sigset_t none;
    int null_fd, log_fd;

    setpgid(0, 0); /* a terminal's Ctrl-C is for us alone; we stop the server when our own work is saved */
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &by_default, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (fchdir(child->dir_fd) != 0)
        _exit(126);
    null_fd = open("/dev/null", O_RDONLY);
    log_fd = open(LOG_NAME, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (null_fd < 0 || log_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
        dup2(log_fd, STDERR_FILENO) < 0)
        _exit(126);
    /* The server keeps the lock for as long as it or a child of its own runs, whatever becomes of us. */
    if (lock_fd == SERVER_LOCK_FD ? fcntl(lock_fd, F_SETFD, 0) != 0 : dup2(lock_fd, SERVER_LOCK_FD) < 0)
        _exit(126);
    close_range(SERVER_LOCK_FD + 1, ~0U, 0);                          /* none of our sockets may stay open in it */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent) /* died before the prctl? */
        _exit(126);
    execvp(argv[0], argv);
    _exit(127);
}

static enum error spawn(struct redis_child *child, int64_t orphan_max_ns)
{
    pid_t parent = getpid(), pid;
    int lock_fd;
    enum error error = lock_open(child->dir_fd, "server.lock", orphan_max_ns, &lock_fd);

    if (error != ERR_NONE)
        return error;
    if (unlinkat(child->dir_fd, SOCKET_NAME, 0) != 0 && errno != ENOENT) {
        close(lock_fd);
        return ERR_SYSTEM;
    }
    pid = fork();
    if (pid == 0)
        become_server(child, lock_fd, parent);
    close(lock_fd);
    if (pid < 0)
        return ERR_SYSTEM;
    child->pid = pid;
    child->has_died = false;
    return ERR_NONE;
}

bool redis_child_has_died(struct redis_child *child)
{
    int status = 0;
    pid_t pid;

    if (child->pid == 0)
        return child->has_died;
    pid = waitpid(child->pid, &status, WNOHANG);
    if (pid == 0 || (pid < 0 && errno == EINTR))
        return false;
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
        log_error(NULL, "redis-server is not installed or not in PATH");
    else if (pid > 0 && WIFSIGNALED(status))
        log_error(NULL, "redis-server was ended by signal %d; see %s/" LOG_NAME, WTERMSIG(status), child->dir);
    else
        log_error(NULL, "redis-server ended with status %d; see %s/" LOG_NAME, WEXITSTATUS(status), child->dir);
    child->pid = 0;
    child->has_died = true;
    return true;
}

static bool answers_ping(const struct redis_child *child)
{
    struct timeval most = {.tv_sec = 1};
    redisContext *redis = redisConnectUnixWithTimeout(child->socket, most);
    redisReply *reply = NULL;
    bool is_ready = false;

    if (redis == NULL || redis->err != 0 || redisSetTimeout(redis, most) != REDIS_OK)
        goto out;
    reply = redisCommand(redis, "PING"); /* an error while it loads its data */
    is_ready = reply != NULL && reply->type == REDIS_REPLY_STATUS;
out:
    freeReplyObject(reply);
    if (redis != NULL)
        redisFree(redis);
    return is_ready;
}

static enum error wait_ready(struct redis_child *child)
{
    int64_t until_ns = clock_mono_ns() + READY_MAX_NS;

    while (!answers_ping(child)) {
        if (redis_child_has_died(child))
            return ERR_UNREACHABLE;
        if (clock_mono_ns() >= until_ns) {
            log_error(NULL, "redis-server does not answer; see %s/" LOG_NAME, child->dir);
            return ERR_DEADLINE;
        }
        pause_for(POLL_NS);
    }
    return ERR_NONE;
}

static enum error open_dir(const char *data_dir, struct redis_child *child)
{
    char path[PATH_MAX];
    int len;

    len = snprintf(path, sizeof(path), "%s/redis", data_dir);
    if (len < 0 || (size_t)len >= sizeof(path))
        return ERR_BAD_INPUT;
    if ((mkdir(data_dir, 0700) != 0 && errno != EEXIST) || (mkdir(path, 0700) != 0 && errno != EEXIST) ||
        realpath(path, child->dir) == NULL)
        goto fail;
    child->dir_fd = open(child->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (child->dir_fd < 0)
        goto fail;
    if (strlen(child->dir) + sizeof("/" SOCKET_NAME) <= sizeof(child->socket))
        snprintf(child->socket, sizeof(child->socket), "%.*s/" SOCKET_NAME, REDIS_SOCKET_PATH_MAX - 11, child->dir);
    else
        snprintf(child->socket, sizeof(child->socket), "/proc/self/fd/%d/" SOCKET_NAME, child->dir_fd);
    return ERR_NONE;
fail:
    log_error(NULL, "cannot open the Redis directory %s: %s", path, strerror(errno));
    return ERR_SYSTEM;
}

enum error redis_child_start(const char *data_dir, bool fsync_always, struct redis_child **ret, char *ret_url,
                             size_t ret_url_size)
{
    struct redis_child *child = calloc(1, sizeof(*child));
    enum error error;
    int len;

    if (child == NULL)
        return ERR_NO_MEMORY;
    child->dir_fd = child->owner_fd = -1;
    child->fsync_always = fsync_always;
    error = open_dir(data_dir, child);
    if (error != ERR_NONE)
        goto out;
    error = lock_open(child->dir_fd, "owner.lock", 0, &child->owner_fd);
    if (error == ERR_BUSY) {
        log_error(NULL, "%s is in use by another gateway; give each its own data directory", data_dir);
        error = ERR_EXISTS;
    }
    if (error != ERR_NONE)
        goto out;
    error = spawn(child, ORPHAN_MAX_NS);
    if (error == ERR_BUSY) {
        log_error(NULL, "the redis-server of an earlier run still has %s", child->dir);
        error = ERR_EXISTS;
    }
    if (error == ERR_NONE)
        error = wait_ready(child);
    if (error != ERR_NONE)
        goto out;
    len = snprintf(ret_url, ret_url_size, "unix://%s", child->socket);
    if (len < 0 || (size_t)len >= ret_url_size) {
        error = ERR_TOO_LARGE;
        goto out;
    }
    *ret = child;
    return ERR_NONE;
out:
    redis_child_stop(child);
    return error;
}

enum error redis_child_restart(struct redis_child *child)
{
    return spawn(child, 0);
}

struct redis_child *redis_child_stop(struct redis_child *child)
{
    int64_t until_ns = clock_mono_ns() + STOP_MAX_NS;

    if (child == NULL)
        return NULL;
    if (child->pid != 0)
        kill(child->pid, SIGTERM);
    while (child->pid != 0) {
        pid_t pid = waitpid(child->pid, NULL, WNOHANG);

        if (pid > 0 || (pid < 0 && errno != EINTR)) {
            child->pid = 0;
        } else if (clock_mono_ns() >= until_ns) {
            log_warn(NULL, "redis-server does not stop; ending it");
            kill(child->pid, SIGKILL);
            until_ns = INT64_MAX;
        } else {
            pause_for(POLL_NS);
        }
    }
    if (child->owner_fd >= 0)
        close(child->owner_fd);
    if (child->dir_fd >= 0)
        close(child->dir_fd);
    free(child);
    return NULL;
}
