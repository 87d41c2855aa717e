#include "adapters/fake_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXTS_MAX ((size_t)1 << 20)
#define TREE_MAX 512
#define TREE_ROUNDS 16

struct stat_seen {
    char state;
    int parent;
    int64_t start_at;
};

/* From /proc/<pid>/stat: what follows the name, which may hold anything. */
static bool stat_read(pid_t pid, struct stat_seen *ret)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (len <= 0)
        return false;
    text[len] = '\0';
    const char *after = strrchr(text, ')');
    long long start = 0;
    struct stat_seen seen = {0};
    if (!after || sscanf(after + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lld",
                         &seen.state, &seen.parent, &start) != 3)
        return false;
    seen.start_at = start;
    *ret = seen;
    return true;
}

bool fake_process_is_alive(const struct fake_process *process)
{
    struct stat_seen seen;
    return process->pid > 0 && stat_read(process->pid, &seen) && seen.start_at == process->start_at &&
           seen.state != 'Z' && seen.state != 'X';
}

struct tree {
    pid_t pids[TREE_MAX];
    size_t count;
};

static bool tree_has(const struct tree *tree, pid_t pid)
{
    for (size_t i = 0; i < tree->count; i++)
        if (tree->pids[i] == pid)
            return true;
    return false;
}

/* Stops and adds the children of those in it; false: there were none. One that is stopped has no more. */
static bool tree_grow(struct tree *tree)
{
    DIR *all = opendir("/proc");
    size_t before = tree->count;
    for (const struct dirent *entry; all && tree->count < TREE_MAX && (entry = readdir(all));) {
        struct stat_seen seen;
        int64_t pid;
        if (str_to_i64(str_of(entry->d_name), &pid) && pid > 1 && !tree_has(tree, (pid_t)pid) &&
            stat_read((pid_t)pid, &seen) && tree_has(tree, seen.parent) && kill((pid_t)pid, SIGSTOP) == 0)
            tree->pids[tree->count++] = (pid_t)pid;
    }
    if (all)
        closedir(all);
    return tree->count > before;
}

/* A machine that is switched off takes all with it; a process does not: a tenant's command is a session of its own. */
void fake_process_kill(const struct fake_process *process)
{
    struct stat_seen seen;
    struct tree tree = {.pids = {process->pid}, .count = 1};
    bool is_there = process->pid > 1 && stat_read(process->pid, &seen);
    if (process->pid <= 1 || (is_there && seen.start_at != process->start_at))
        return; /* its number belongs to somebody else now */
    if (is_there && kill(process->pid, SIGSTOP) == 0)
        for (int i = 0; i < TREE_ROUNDS && tree_grow(&tree);)
            i++;
    kill(-process->pid, SIGKILL);
    for (size_t i = 1; i < tree.count; i++)
        kill(tree.pids[i], SIGKILL);
}

/* The texts as NUL-terminated ones behind each other in `bytes`, the pointers to them in `list`. */
struct texts {
    struct buf bytes;
    size_t at[520];
    char *list[521];
    size_t count;
};

static bool texts_add(struct texts *texts, struct str a, const char *between, struct str b)
{
    if (texts->count == sizeof(texts->at) / sizeof(texts->at[0]) || (a.len && memchr(a.ptr, 0, a.len)) ||
        (b.len && memchr(b.ptr, 0, b.len)))
        return false;
    texts->at[texts->count++] = texts->bytes.len;
    return buf_append_str(&texts->bytes, a) && buf_append_str(&texts->bytes, str_of(between)) &&
           buf_append_str(&texts->bytes, b) && buf_append(&texts->bytes, "", 1);
}

static char **texts_list(struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        texts->list[i] = texts->bytes.ptr + texts->at[i];
    texts->list[texts->count] = NULL;
    return texts->list;
}

/* Between fork and exec: only what is safe in the child of a program with threads. */
static _Noreturn void run_child(char **argv, char **env, const char *folder, int log, int out)
{
    setsid();
    pid_t pid = fork(); /* the leader's parent ends at once, so that nobody of ours must wait for it */
    if (pid) {
        if (write(out, &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        _exit(0);
    }
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0 && dup2(null, 0) >= 0 && dup2(log, 1) >= 0 && dup2(log, 2) >= 0 && !chdir(folder)) {
        close_range(3, ~0U, 0);
        execvpe(argv[0], argv, env);
    }
    _exit(127);
}

static enum error run_texts(char **argv, char **env, const char *folder, int log, struct fake_process *ret)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return ERR_SYSTEM;
    pid_t pid = 0, middle = fork();
    if (!middle)
        run_child(argv, env, folder, log, ends[1]);
    close(ends[1]);
    bool is_told = middle > 0 && read(ends[0], &pid, sizeof(pid)) == sizeof(pid) && pid > 0;
    close(ends[0]);
    while (middle > 0 && waitpid(middle, NULL, 0) < 0 && errno == EINTR) {
    }
    if (!is_told)
        return ERR_SYSTEM;
    struct stat_seen seen;
    *ret = (struct fake_process){pid, stat_read(pid, &seen) ? seen.start_at : -1 /* over already */};
    return ERR_NONE;
}

enum error fake_run(const struct supply_order *order, const char *folder, struct fake_process *ret)
{
    enum error error = ERR_NO_MEMORY;
    char path[640];
    int log = -1;
    struct texts *argv = calloc(1, sizeof(*argv)), *env = calloc(1, sizeof(*env));
    if (!argv || !env)
        goto out;
    buf_init(&argv->bytes, TEXTS_MAX);
    buf_init(&env->bytes, TEXTS_MAX);
    const char *search = getenv("PATH");
    bool is_put = order->argc > 0 && texts_add(env, STR("PATH"), "=", str_of(search ? search : "/usr/bin:/bin")) &&
                  texts_add(env, STR("HOME"), "=", str_of(folder)) &&
                  texts_add(env, STR("TMPDIR"), "=", str_of(folder));
    for (size_t i = 0; is_put && i < order->argc; i++)
        is_put = texts_add(argv, order->argv[i], "", STR(""));
    for (size_t i = 0; is_put && i < order->env_count; i++)
        is_put = texts_add(env, order->env[i].key, "=", order->env[i].value);
    error = is_put ? ERR_SYSTEM : ERR_BAD_INPUT;
    if (!is_put || snprintf(path, sizeof(path), "%s/log", folder) >= (int)sizeof(path))
        goto out;
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0)
        error = run_texts(texts_list(argv), texts_list(env), folder, log, ret);
out:
    if (log >= 0)
        close(log);
    if (env && env->bytes.ptr)
        explicit_bzero(env->bytes.ptr, env->bytes.len);
    if (argv)
        buf_free(&argv->bytes);
    if (env)
        buf_free(&env->bytes);
    free(argv);
    free(env);
    return error;
}
