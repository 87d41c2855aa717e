/* sluice-worker: the agent on a GPU machine. */
#include "adapters/native/agent.h"
#include "core/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define SLUICE_VERSION "0.1.0"
#define EXIT_USAGE 2
#define EXIT_START 1

struct program {
    struct loop *loop;
    struct agent *agent;
    struct io_source signals;
    int asked; /* how often we were asked to end */
    enum agent_exit code;
};

static void on_done(void *ctx, enum agent_exit code)
{
    struct program *program = ctx;
    program->code = code;
    loop_stop(program->loop);
}

static void on_signal(struct io_source *source, uint32_t events)
{
    struct program *program = container_of(source, struct program, signals);
    struct signalfd_siginfo info;
    (void)events;
    if (read(source->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (++program->asked > 1)
        _exit(EXIT_START);
    agent_drain(program->agent);
}

/* Blocked before any thread starts, so that all of them inherit it. */
static bool signals_open(struct program *program)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    program->signals.on_ready = on_signal;
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    program->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return program->signals.fd >= 0 && loop_add(program->loop, &program->signals, EPOLLIN) == ERR_NONE;
}

static int run(const struct agent_options *options)
{
    struct program program = {.code = AGENT_DRAINED};
    enum error error = loop_open(&program.loop);
    if (!error && !signals_open(&program))
        error = ERR_SYSTEM;
    if (!error)
        error = agent_open(program.loop, options, on_done, &program, &program.agent);
    if (error == ERR_EXISTS)
        log_error(NULL, "another sluice-worker uses %s: give each its own --state-dir", options->state_dir);
    else if (error == ERR_BAD_INPUT)
        log_error(NULL, "%s/worker.json is damaged: remove it to enrol as a new worker", options->state_dir);
    else if (error)
        log_error(NULL, "cannot start with the state directory %s: %s", options->state_dir, error_text(error));
    if (!error)
        loop_run(program.loop);
    agent_free(program.agent);
    loop_free(program.loop);
    return error ? EXIT_START : (int)program.code;
}

int main(int argc, char *argv[])
{
    static struct agent_options options;
    char message[512];
    log_init("sluice-worker", LOG_INFO);
    enum agent_parsed parsed = agent_options_parse(argc, argv, &options, message, sizeof(message));
    if (parsed == AGENT_RUN && !options.no_probe && !options.probe[0] &&
        !agent_probe_default(&options, message, sizeof(message)))
        parsed = AGENT_BAD;
    switch (parsed) {
    case AGENT_HELP:
        fputs(agent_usage, stdout);
        return EXIT_SUCCESS;
    case AGENT_VERSION:
        puts("sluice-worker " SLUICE_VERSION);
        return EXIT_SUCCESS;
    case AGENT_BAD:
        fprintf(stderr, "sluice-worker: %s\nsluice-worker --help tells more\n", message);
        return EXIT_USAGE;
    case AGENT_RUN:
        break;
    }
    return run(&options);
}
