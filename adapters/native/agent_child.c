/* The probe's process: started with little around it, ended without ever waiting long. */
#include "adapters/native/agent_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENV_MAX 64
#define PIPE_BYTES (1 << 20)
#define PROBE_DIR "probe"
#define PROBE_KEY "probe.key"

/* All that the child needs, made before the fork: between fork and exec nothing may be allocated. */
struct spawn {
    const char *argv[5];
    char *env[ENV_MAX + 2];
    char key[sizeof(((struct agent_state *)0)->dir) + sizeof(PROBE_KEY) + 1];
    char fault[40];
    int in, out, err, dir_fd; /* dir_fd: where to go, -1: stay */
    const struct agent_options *options;
    pid_t parent;
};

static bool is_kept(const char *variable)
{
    static const char *const starts[] = {
        "PATH=", "LD_LIBRARY_PATH=", "CUDA_VISIBLE_DEVICES=", "NVIDIA_", "SLUICE_PROBE_", "SLUICE_LIBCUDA="};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
        if (!strncmp(variable, starts[i], strlen(starts[i])))
            return true;
    return false;
}

/* Tokens and keys of this process are none of the child's. */
static void env_fill(struct spawn *spawn)
{
    const struct agent_options *options = spawn->options;
    size_t count = 0;
    if (options->wrong_proof || options->late_proof) {
        snprintf(spawn->fault, sizeof(spawn->fault), "SLUICE_PROBE_FAULT=%s",
                 options->wrong_proof ? "wrong-proof" : "late-proof");
        spawn->env[count++] = spawn->fault;
    }
    for (size_t i = 0; environ && environ[i] && count < ENV_MAX; i++)
        if (is_kept(environ[i]) && !(spawn->fault[0] && !strncmp(environ[i], "SLUICE_PROBE_FAULT=", 19)))
            spawn->env[count++] = environ[i];
    spawn->env[count] = NULL;
}

/* Another user cannot look into the state directory, so its key lies in a folder of its own, which the child enters
 * before it becomes that user. */
static bool key_place(struct spawn *spawn, const char *state_dir)
{
    const struct agent_options *options = spawn->options;
    spawn->dir_fd = -1;
    if (!options->has_probe_user) {
        int len = snprintf(spawn->key, sizeof(spawn->key), "%s/%s", state_dir, PROBE_KEY);
        return (size_t)len < sizeof(spawn->key);
    }
    memcpy(spawn->key, PROBE_KEY, sizeof(PROBE_KEY));
    int state_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state_fd >= 0 && (mkdirat(state_fd, PROBE_DIR, 0700) == 0 || errno == EEXIST))
        spawn->dir_fd = openat(state_fd, PROBE_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state_fd >= 0)
        close(state_fd);
    return spawn->dir_fd >= 0 && fchown(spawn->dir_fd, options->probe_uid, options->probe_gid) == 0;
}

static bool become(const struct spawn *spawn)
{
    const struct agent_options *options = spawn->options;
    if (!options->has_probe_user)
        return true;
    return fchdir(spawn->dir_fd) == 0 && setgroups(0, NULL) == 0 &&
           setresgid(options->probe_gid, options->probe_gid, options->probe_gid) == 0 &&
           setresuid(options->probe_uid, options->probe_uid, options->probe_uid) == 0;
}

/* In the child. Only calls that are safe after a fork of a process with threads. */
static _Noreturn void child_main(const struct spawn *spawn)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    bool is_good = dup2(spawn->in, 0) >= 0 && dup2(spawn->out, 1) >= 0 && dup2(spawn->err, 2) >= 0 && become(spawn);
    if (is_good && close_range(3, UINT_MAX, 0) != 0)
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    /* After the change of user, which clears it. */
    if (is_good && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == spawn->parent)
        execve(spawn->argv[0], (char *const *)(uintptr_t)spawn->argv, spawn->env);
    _exit(127);
}

static bool pipe_open(int ret[2], int ours)
{
    if (pipe2(ret, O_CLOEXEC) != 0)
        return false;
    fcntl(ret[0], F_SETPIPE_SZ, PIPE_BYTES); /* fewer turns for a frame; less is no fault */
    return fcntl(ret[ours], F_SETFL, O_NONBLOCK) == 0;
}

static void pair_close(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

enum error agent_child_start(const struct agent_options *options, const char *state_dir, struct agent_child *ret)
{
    struct spawn spawn = {.options = options, .dir_fd = -1, .parent = getpid()};
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    enum error error = ERR_SYSTEM;
    if (!key_place(&spawn, state_dir) || !pipe_open(in, 1) || !pipe_open(out, 0) || !pipe_open(err, 0))
        goto out;
    env_fill(&spawn);
    const char *const argv[] = {options->probe, "serve", "--key", spawn.key, NULL};
    memcpy(spawn.argv, argv, sizeof(argv));
    spawn.in = in[0];
    spawn.out = out[1];
    spawn.err = err[1];
    pid_t pid = fork();
    if (pid == 0)
        child_main(&spawn);
    if (pid < 0)
        goto out;
    *ret = (struct agent_child){.pid = pid, .in = in[1], .out = out[0], .err = err[0]};
    in[1] = out[0] = err[0] = -1;
    error = ERR_NONE;
out:
    pair_close(in);
    pair_close(out);
    pair_close(err);
    if (spawn.dir_fd >= 0)
        close(spawn.dir_fd);
    return error;
}

void agent_child_kill(const struct agent_child *child)
{
    if (child->pid <= 0)
        return;
    kill(-child->pid, SIGKILL); /* its session, once it has one */
    kill(child->pid, SIGKILL);
}

bool agent_child_reap(struct agent_child *child, char *ret_how, size_t size)
{
    int status = 0;
    if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == 0)
        return false;
    child->pid = 0;
    if (WIFSIGNALED(status))
        snprintf(ret_how, size, "signal %d", WTERMSIG(status));
    else
        snprintf(ret_how, size, "exit %d", WEXITSTATUS(status));
    return true;
}
