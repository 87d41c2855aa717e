/* The command of a leased machine's tenant: started when a gateway says so, watched, ended, its output kept. And the
 * dead man's switch: where no gateway has come for long, nobody owns what runs here, and it ends. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES ((size_t)1 << 20)
#define READ_BYTES 16384
#define READS_A_TURN 16
#define PASS_BYTES 4096 /* PIPE_BUF: what a pipe that is writable takes whole */
#define WATCH_NS (100 * NS_PER_MS)
#define KILL_NS (10 * NS_PER_S)
#define START_NS (10 * NS_PER_S)
#define ENV_MAX 1024
#define BEGUN_FILE "begun" /* in the state directory, once a gateway has said that the command may run */

enum phase { PHASE_WAITING, PHASE_RUNNING, PHASE_STOPPING, PHASE_EXITED };

struct agent_lease {
    struct agent *agent;
    enum phase phase;
    pid_t pid; /* 0: none; its group has the same number */
    int exit_code;
    struct io_source out; /* the read end of its stdout and stderr; fd -1: closed */
    struct timer watch;
    bool was_begun;     /* by an agent before this one: the container was started again */
    bool is_starting;   /* as soon as the probe has given up the devices */
    int64_t start_ns;   /* by then even if the probe's process hangs */
    int64_t kill_ns;    /* while stopping */
    int64_t gateway_ns; /* when a gateway was last here */
    bool is_out_over;   /* nothing more comes of it */
    bool is_orphan;
    int64_t written; /* bytes in all */
    char *ring;      /* OUTPUT_BYTES; the byte of offset o is at o % OUTPUT_BYTES */
};

static void set_phase(struct agent_lease *lease, enum phase phase)
{
    if (lease->phase == phase)
        return;
    lease->phase = phase;
    agent_status_changed(lease->agent);
}

/* -- output ------------------------------------------------------------------------------------------------------ */

/* To our own stdout too, which is where networks that have logs look. What it does not take at once is not for it. */
static void pass_on(struct str bytes)
{
    while (bytes.len > 0) {
        struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
        size_t len = bytes.len < PASS_BYTES ? bytes.len : PASS_BYTES;
        if (poll(&out, 1, 0) != 1 || !(out.revents & POLLOUT))
            return;
        ssize_t written = write(STDOUT_FILENO, bytes.ptr, len);
        if (written <= 0)
            return;
        bytes = (struct str){bytes.ptr + written, bytes.len - (size_t)written};
    }
}

static void keep(struct agent_lease *lease, struct str bytes)
{
    while (bytes.len > 0) {
        size_t at = (size_t)lease->written % OUTPUT_BYTES, room = OUTPUT_BYTES - at;
        size_t len = bytes.len < room ? bytes.len : room;
        memcpy(lease->ring + at, bytes.ptr, len);
        lease->written += (int64_t)len;
        bytes = (struct str){bytes.ptr + len, bytes.len - len};
    }
}

static void out_close(struct agent_lease *lease)
{
    if (lease->out.fd < 0)
        return;
    loop_remove(lease->agent->loop, &lease->out);
    close(lease->out.fd);
    lease->out.fd = -1;
}

/* Reads what is there, but not for ever. */
static void out_read(struct agent_lease *lease)
{
    char bytes[READ_BYTES];
    bool has_come = false;
    for (unsigned i = 0; i < READS_A_TURN && lease->out.fd >= 0; i++) {
        ssize_t len = read(lease->out.fd, bytes, sizeof(bytes));
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (len <= 0) {
            out_close(lease);
            break;
        }
        keep(lease, (struct str){bytes, (size_t)len});
        pass_on((struct str){bytes, (size_t)len});
        has_come = true;
    }
    if (has_come)
        agent_output_came(lease->agent);
}

static void out_on_ready(struct io_source *source, uint32_t events)
{
    (void)events;
    out_read(container_of(source, struct agent_lease, out));
}

void agent_lease_output(const struct agent_lease *lease, int64_t from, size_t most, struct agent_output *ret)
{
    int64_t oldest = lease->written > (int64_t)OUTPUT_BYTES ? lease->written - (int64_t)OUTPUT_BYTES : 0;
    int64_t start = from < oldest ? oldest : from > lease->written ? lease->written : from;
    size_t len = (size_t)(lease->written - start), at = (size_t)start % OUTPUT_BYTES;
    len = len < most ? len : most;
    size_t first = len < OUTPUT_BYTES - at ? len : OUTPUT_BYTES - at;
    *ret = (struct agent_output){.start = start,
                                 .end = start + (int64_t)len,
                                 .parts = {{lease->ring + at, first}, {lease->ring, len - first}},
                                 .is_over = lease->is_out_over && start + (int64_t)len == lease->written};
}

/* -- the process ------------------------------------------------------------------------------------------------- */

/* Made before the fork: between fork and exec nothing may be allocated. */
struct launch {
    const struct agent_options *options;
    char *env[ENV_MAX + 1];
    int out, in;
    pid_t parent;
};

/* What is ours in the environment is none of the tenant's. */
static void env_fill(struct launch *launch)
{
    size_t count = 0;
    for (size_t i = 0; environ && environ[i] && count < ENV_MAX; i++)
        if (strncmp(environ[i], "SLUICE_", 7) != 0)
            launch->env[count++] = environ[i];
    launch->env[count] = NULL;
}

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

static bool become(const struct agent_options *options)
{
    return !options->has_command_user ||
           (setgroups(0, NULL) == 0 &&
            setresgid(options->command_gid, options->command_gid, options->command_gid) == 0 &&
            setresuid(options->command_uid, options->command_uid, options->command_uid) == 0);
}

/* In the child. Only calls that are safe after a fork of a process with threads. */
static _Noreturn void launch_main(const struct launch *launch)
{
    char *const *command = launch->options->command;
    sigset_t none;
    sigemptyset(&none);
    setsid();
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(launch->in, STDIN_FILENO) < 0 || dup2(launch->out, STDOUT_FILENO) < 0 ||
        dup2(launch->out, STDERR_FILENO) < 0)
        _exit(126);
    if (close_range(3, UINT_MAX, 0) != 0)
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    /* After the change of user, which clears it: with the agent goes what it was to end. */
    if (!become(launch->options) || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != launch->parent) {
        say("sluice-worker: the command's user cannot be taken on\n");
        _exit(126);
    }
    execvpe(command[0], command, launch->env);
    int code = errno == ENOENT ? 127 : 126;
    say("sluice-worker: cannot run ");
    say(command[0]);
    say(code == 127 ? ": there is no such program\n" : ": it is no program that can be run here\n");
    _exit(code);
}

static bool begun_path(const struct agent_lease *lease, char *ret, size_t size)
{
    return (size_t)snprintf(ret, size, "%s/" BEGUN_FILE, lease->agent->state.dir) < size;
}

/* A container that is started again goes on with its command; one whose command has ended does not. */
static void note_begun(const struct agent_lease *lease, bool is_begun)
{
    char path[sizeof(lease->agent->state.dir) + sizeof(BEGUN_FILE) + 1];
    if (!begun_path(lease, path, sizeof(path)))
        return;
    int fd = is_begun ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0)
        close(fd);
    else if (!is_begun)
        unlink(path);
}

static void command_ended(struct agent_lease *lease, int exit_code)
{
    struct log_ctx log = agent_log(lease->agent);
    lease->pid = 0;
    lease->exit_code = exit_code;
    if (!lease->agent->is_draining) /* the container's end is not the command's */
        note_begun(lease, false);
    out_read(lease); /* what it said last; what its own children still say is not waited for */
    lease->is_out_over = true;
    out_close(lease);
    set_phase(lease, PHASE_EXITED);
    agent_output_came(lease->agent);
    log_info(&log, "the command has ended with code %d", exit_code);
}

static void group_kill(const struct agent_lease *lease, int number)
{
    if (lease->pid > 0 && kill(-lease->pid, number) != 0) /* not yet its own group */
        kill(lease->pid, number);
}

/* As the first process of a container the agent inherits orphans; those that are nobody's else are laid to rest. */
static void reap_strangers(const struct agent_lease *lease)
{
    for (unsigned i = 0; i < 64 && getpid() == 1; i++) {
        siginfo_t about = {.si_pid = 0};
        if (waitid(P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT) != 0 || about.si_pid == 0 ||
            about.si_pid == lease->pid || agent_probe_is(lease->agent->probe, about.si_pid))
            return;
        waitpid(about.si_pid, NULL, WNOHANG);
    }
}

static void start(struct agent_lease *lease);

static void on_watch(struct timer *timer)
{
    struct agent_lease *lease = container_of(timer, struct agent_lease, watch);
    struct loop *loop = lease->agent->loop;
    int status = 0;
    timer_set(loop, timer, loop_now(loop) + WATCH_NS);
    reap_strangers(lease);
    agent_output_came(lease->agent);
    if (lease->is_starting && (agent_probe_is_gone(lease->agent->probe) || loop_now(loop) >= lease->start_ns))
        start(lease);
    if (lease->pid <= 0)
        return;
    if (lease->phase == PHASE_STOPPING && loop_now(loop) >= lease->kill_ns) {
        lease->kill_ns = INT64_MAX;
        group_kill(lease, SIGKILL);
    }
    pid_t done = waitpid(lease->pid, &status, WNOHANG);
    if (done == 0)
        return;
    group_kill(lease, SIGKILL); /* what it left behind in its group */
    command_ended(lease, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    if (lease->is_orphan)
        agent_finish(lease->agent, AGENT_ORPHANED);
    agent_call_ended(lease->agent);
}

static enum error launch(struct agent_lease *lease)
{
    struct launch *launch = calloc(1, sizeof(*launch));
    int out[2] = {-1, -1};
    enum error error = ERR_SYSTEM;
    if (!launch)
        return ERR_NO_MEMORY;
    launch->options = &lease->agent->options;
    launch->parent = getpid();
    launch->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    env_fill(launch);
    if (launch->in < 0 || pipe2(out, O_CLOEXEC) != 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) != 0)
        goto done;
    launch->out = out[1];
    lease->out.fd = out[0];
    lease->out.on_ready = out_on_ready;
    error = loop_add(lease->agent->loop, &lease->out, EPOLLIN);
    pid_t pid = error ? -1 : fork();
    if (pid == 0)
        launch_main(launch);
    if (pid < 0) {
        out_close(lease);
        error = ERR_SYSTEM;
    } else {
        lease->pid = pid;
    }
    out[0] = -1; /* the source's */
done:
    if (out[0] >= 0)
        close(out[0]);
    if (out[1] >= 0)
        close(out[1]);
    if (launch->in >= 0)
        close(launch->in);
    free(launch);
    return error;
}

static void start(struct agent_lease *lease)
{
    struct log_ctx log = agent_log(lease->agent);
    lease->is_starting = false;
    enum error error = launch(lease);
    if (error) {
        log_error(&log, "the command cannot be started: %s", error_text(error));
        command_ended(lease, 126);
        return;
    }
    log_info(&log, "the command runs, process %d", (int)lease->pid);
}

void agent_lease_run(struct agent_lease *lease)
{
    struct log_ctx log = agent_log(lease->agent);
    if (lease->phase != PHASE_WAITING)
        return;
    note_begun(lease, true);
    set_phase(lease, PHASE_RUNNING);
    agent_probe_close(lease->agent->probe); /* the devices are the tenant's from here on */
    lease->is_starting = lease->agent->options.command != NULL;
    lease->start_ns = loop_now(lease->agent->loop) + START_NS;
    log_info(&log, "the lease begins%s", lease->is_starting ? "" : ", without a command");
}

void agent_lease_stop(struct agent_lease *lease)
{
    lease->was_begun = false;
    if (!lease->agent->is_draining)
        note_begun(lease, false);
    if (lease->pid > 0 && lease->phase == PHASE_RUNNING) {
        lease->kill_ns = loop_now(lease->agent->loop) + KILL_NS;
        group_kill(lease, SIGTERM);
        set_phase(lease, PHASE_STOPPING);
    } else if (lease->pid <= 0 && lease->phase != PHASE_EXITED) {
        lease->is_starting = false;
        lease->is_out_over = true;
        set_phase(lease, PHASE_EXITED);
        agent_output_came(lease->agent);
    }
}

bool agent_lease_has_ended(const struct agent_lease *lease)
{
    return lease->phase == PHASE_EXITED;
}

const char *agent_lease_state(const struct agent_lease *lease, int *ret_exit_code)
{
    static const char *const names[] = {[PHASE_WAITING] = "waiting",
                                        [PHASE_RUNNING] = "running",
                                        [PHASE_STOPPING] = "stopping",
                                        [PHASE_EXITED] = "exited"};
    *ret_exit_code = lease->exit_code;
    return names[lease->phase];
}

void agent_lease_each_second(struct agent_lease *lease, bool has_gateway)
{
    struct agent *agent = lease->agent;
    int64_t now_ns = loop_now(agent->loop);
    struct log_ctx log = agent_log(agent);
    if (has_gateway)
        lease->gateway_ns = now_ns;
    if (has_gateway && lease->was_begun) {
        lease->was_begun = false;
        log_info(&log, "the command was begun before: it goes on");
        agent_lease_run(lease);
    }
    if (lease->is_orphan || agent->is_draining || now_ns - lease->gateway_ns < agent->options.orphan_ns)
        return;
    lease->is_orphan = true;
    log_warn(&log, "no gateway for %lld s: nobody owns this machine any more, so it ends",
             (long long)(agent->options.orphan_ns / NS_PER_S));
    agent_lease_stop(lease);
    if (agent_lease_has_ended(lease))
        agent_finish(agent, AGENT_ORPHANED);
}

/* -- life -------------------------------------------------------------------------------------------------------- */

enum error agent_lease_open(struct agent *agent, struct agent_lease **ret)
{
    struct agent_lease *lease = calloc(1, sizeof(*lease));
    char *ring = malloc(OUTPUT_BYTES);
    if (!lease || !ring) {
        free(ring);
        free(lease);
        return ERR_NO_MEMORY;
    }
    char path[sizeof(agent->state.dir) + sizeof(BEGUN_FILE) + 1];
    lease->agent = agent;
    lease->ring = ring;
    lease->was_begun = begun_path(lease, path, sizeof(path)) && access(path, F_OK) == 0;
    lease->out.fd = -1;
    lease->gateway_ns = loop_now(agent->loop);
    lease->watch.on_due = on_watch;
    timer_set(agent->loop, &lease->watch, loop_now(agent->loop) + WATCH_NS);
    prctl(PR_SET_DUMPABLE, 0); /* the command may run as the same user: it is not to read our environment or memory */
    *ret = lease;
    return ERR_NONE;
}

struct agent_lease *agent_lease_free(struct agent_lease *lease)
{
    if (!lease)
        return NULL;
    group_kill(lease, SIGKILL);
    out_close(lease);
    timer_clear(lease->agent->loop, &lease->watch);
    free(lease->ring);
    free(lease);
    return NULL;
}
