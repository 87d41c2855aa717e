/* sluiced: the gateway daemon. Reads the settings, starts Redis if none is named, one reactor a core and the control
 * thread (this one), and ends them in order. */
#include "core/clock.h"
#include "core/httpd.h"
#include "core/log.h"
#include "core/redis_child.h"
#include "gateway/bootstrap.h"
#include "gateway/control.h"
#include "gateway/networks.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLUICE_VERSION "0.1.0"
#define REACTORS_MAX 64
#define CALLS_DRAIN_NS (10 * NS_PER_S) /* running calls may end within this after SIGTERM */
#define IDLE_WAIT_NS (5 * NS_PER_S)
#define CHILD_LOOK_NS (200 * NS_PER_MS)

struct daemon {
    struct gateway gateway;
    struct settings settings;
    bool check_only;
    char redis_url[PATH_MAX];
    char journal_dir[PATH_MAX];
    struct redis_child *redis_child;
    struct timer child_timer;
    struct loop *loop;
    struct redis *redis;
    struct reactor *reactors[REACTORS_MAX];
    pthread_t threads[REACTORS_MAX];
    size_t running;
    uint16_t port;
};

static struct loop *signal_loop; /* for the signal handler only */
static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    if (++signals_seen > 1)
        _exit(1); /* asked twice: what is open is in the journal */
    loop_stop(signal_loop);
}

/* -- options -- */

static const char usage[] =
    "Usage: sluiced [options]\n"
    "  --config FILE        settings in YAML\n"
    "  --listen HOST:PORT   where callers come in (default 127.0.0.1:8080)\n"
    "  --link-listen H:P    where workers' links come in (default: the host above, any port)\n"
    "  --data-dir DIR       journal, admin key, embedded Redis (default ./var)\n"
    "  --redis URL          redis:// or unix://; default: a redis-server of our own\n"
    "  --threads N          reactors (default: one a core)\n"
    "  --check              check the settings and exit\n"
    "  --version, --help\n"
    "SLUICE_ADMIN_KEY in the environment is the admin key; else it is made once in DIR/admin.key.\n";

/* Exits on --help, --version and anything wrong. */
static void read_options(int argc, char **argv, struct daemon *daemon)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},   {"listen", required_argument, NULL, 'l'},
        {"data-dir", required_argument, NULL, 'd'}, {"redis", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'},  {"link-listen", required_argument, NULL, 'k'},
        {"check", no_argument, NULL, 'C'},          {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},        {NULL, 0, NULL, 0}};
    static const struct {
        int option;
        const char *key, *name;
    } keys[] = {{'l', "listen", "--listen"},
                {'d', "data_dir", "--data-dir"},
                {'r', "redis.url", "--redis"},
                {'t', "threads", "--threads"},
                {'k', "link_listen", "--link-listen"}};
    enum { KEYS = sizeof(keys) / sizeof(*keys) };
    const char *config = NULL, *values[KEYS] = {NULL};
    char error[CONFIG_ERROR_MAX];
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            config = optarg;
        else if (option == 'C')
            daemon->check_only = true;
        else if (option == 'h' || option == 'v') {
            fputs(option == 'h' ? usage : "sluiced " SLUICE_VERSION "\n", stdout);
            exit(0);
        } else if (option == '?') {
            fputs(usage, stderr);
            exit(2);
        }
        for (size_t i = 0; i < KEYS; i++)
            if (keys[i].option == option)
                values[i] = optarg;
    }
    if (optind < argc) {
        fprintf(stderr, "sluiced: unexpected argument '%s'\n%s", argv[optind], usage);
        exit(2);
    }
    if (settings_load(config, &daemon->settings, error) != ERR_NONE) {
        fprintf(stderr, "sluiced: %s\n", error);
        exit(2);
    }
    bool is_good = true;
    for (size_t i = 0; i < KEYS && is_good; i++)
        is_good =
            !values[i] || settings_set(&daemon->settings, keys[i].key, values[i], keys[i].name, error) == ERR_NONE;
    if (!is_good || settings_check(&daemon->settings, error) != ERR_NONE) {
        fprintf(stderr, "sluiced: %s\n", error);
        exit(2);
    }
}

/* -- data directory and admin key -- */

static bool make_dirs(struct daemon *daemon)
{
    const char *dir = daemon->settings.data_dir;
    int len = snprintf(daemon->journal_dir, sizeof(daemon->journal_dir), "%s/journal", dir);
    if (len < 0 || (size_t)len >= sizeof(daemon->journal_dir))
        return false;
    return (mkdir(dir, 0700) == 0 || errno == EEXIST) && (mkdir(daemon->journal_dir, 0700) == 0 || errno == EEXIST);
}

/* Reads DIR/admin.key, or makes it. */
static bool stored_admin_key(const char *dir, char *ret, size_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/admin.key", dir);
    FILE *file = fopen(path, "re");
    if (file) {
        bool is_read = fgets(ret, (int)size, file) != NULL;
        fclose(file);
        ret[strcspn(ret, "\r\n")] = '\0';
        return is_read && strlen(ret) >= 16;
    }
    crypto_secret("sk-admin-", ret);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool is_written = fd >= 0 && dprintf(fd, "%s\n", ret) > 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return is_written;
}

static bool load_admin_key(struct daemon *daemon)
{
    char key[256] = "";
    const char *given = getenv("SLUICE_ADMIN_KEY");
    if (given && *given) {
        crypto_sha256(str_of(given), daemon->gateway.admin_key_sha256);
        unsetenv("SLUICE_ADMIN_KEY"); /* no child needs it */
        return true;
    }
    if (!stored_admin_key(daemon->settings.data_dir, key, sizeof(key)))
        return false;
    crypto_sha256(str_of(key), daemon->gateway.admin_key_sha256);
    crypto_wipe(key, sizeof(key));
    return true;
}

/* -- Redis -- */

static void on_child_timer(struct timer *timer)
{
    struct daemon *daemon = container_of(timer, struct daemon, child_timer);
    if (redis_child_has_died(daemon->redis_child)) {
        enum error error = redis_child_restart(daemon->redis_child);
        log_warn(NULL, "redis-server has died; starting it again: %s", error_text(error));
    }
    timer_set(daemon->loop, timer, loop_now(daemon->loop) + CHILD_LOOK_NS);
}

static enum error start_redis(struct daemon *daemon)
{
    if (*daemon->settings.redis_url) {
        bool fits = str_copy(daemon->redis_url, sizeof(daemon->redis_url), str_of(daemon->settings.redis_url));
        return fits ? ERR_NONE : ERR_TOO_LARGE;
    }
    enum error error = redis_child_start(daemon->settings.data_dir, true, &daemon->redis_child, daemon->redis_url,
                                         sizeof(daemon->redis_url));
    if (error == ERR_EXISTS)
        log_error(NULL, "another sluiced uses the data directory %s", daemon->settings.data_dir);
    if (error == ERR_NONE) {
        daemon->child_timer.on_due = on_child_timer;
        timer_set(daemon->loop, &daemon->child_timer, clock_mono_ns() + CHILD_LOOK_NS);
    }
    return error;
}

/* -- reactors -- */

static size_t reactor_count(const struct settings *settings)
{
    cpu_set_t cpus;
    long count = settings->threads;
    if (count == 0)
        count = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    return count > REACTORS_MAX ? REACTORS_MAX : (size_t)count;
}

static enum error open_reactors(struct daemon *daemon)
{
    struct gateway *gateway = &daemon->gateway;
    const struct config_address *listen = &daemon->settings.listen;
    bool is_v6 = strchr(listen->host, ':') != NULL;
    daemon->port = listen->port;
    gateway->reactors = daemon->reactors;
    gateway->reactor_count = reactor_count(&daemon->settings);
    for (size_t i = 0; i < gateway->reactor_count; i++) {
        char address[300];
        int fd;
        snprintf(address, sizeof(address), is_v6 ? "[%s]:%u" : "%s:%u", listen->host, daemon->port);
        enum error error = httpd_listen(address, i == 0, &fd, &daemon->port);
        if (error != ERR_NONE) {
            log_error(NULL, "cannot listen on %s: %s", address, strerror(errno));
            return error;
        }
        struct reactor_options options = {.gateway = gateway,
                                          .index = (unsigned)i,
                                          .redis_url = daemon->redis_url,
                                          .journal_dir = daemon->journal_dir,
                                          .listen_fd = fd};
        error = reactor_open(&options, &daemon->reactors[i]);
        if (error != ERR_NONE) {
            log_error(NULL, "reactor %zu cannot start: %s", i, error_text(error));
            return error;
        }
    }
    return ERR_NONE;
}

static void *reactor_thread(void *arg)
{
    reactor_run(arg);
    return NULL;
}

static enum error run_reactors(struct daemon *daemon)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the control thread's */
    for (size_t i = 0; i < daemon->gateway.reactor_count; i++) {
        if (pthread_create(&daemon->threads[i], NULL, reactor_thread, daemon->reactors[i]) != 0)
            break;
        daemon->running++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return daemon->running == daemon->gateway.reactor_count ? ERR_NONE : ERR_SYSTEM;
}

/* -- leased machines -- */

/* Where they reach us: as set, else where we listen, if that is an address that one could dial. */
static bool take_public_url(struct daemon *daemon)
{
    const struct config_address *listen = &daemon->settings.listen;
    struct gateway *gateway = &daemon->gateway;
    bool is_v6 = strchr(listen->host, ':') != NULL;
    struct str set = str_of(daemon->settings.public_url);
    while (set.len > 0 && set.ptr[set.len - 1] == '/')
        set.len--;
    if (set.len > 0)
        return str_copy(gateway->public_url, sizeof(gateway->public_url), set);
    if (!strcmp(listen->host, "0.0.0.0") || !strcmp(listen->host, "::"))
        return true;
    int len = snprintf(gateway->public_url, sizeof(gateway->public_url), is_v6 ? "http://[%s]:%u" : "http://%s:%u",
                       listen->host, daemon->port);
    return (size_t)len < sizeof(gateway->public_url);
}

/* Networks whose machines are elsewhere, behind an address that is only ours. */
static void warn_of_url(const struct daemon *daemon)
{
    const struct settings_network *networks = daemon->settings.networks.items;
    struct str url = str_of(daemon->gateway.public_url);
    bool is_far = false;
    for (size_t i = 0; i < daemon->settings.networks.count; i++)
        is_far = is_far || (strcmp(networks[i].adapter, "native") != 0 && strcmp(networks[i].adapter, "fake") != 0);
    if (is_far && url.len == 0)
        log_warn(NULL, "public_url is not set: no machine can be leased");
    else if (is_far && (str_starts(url, STR("http://127.")) || str_starts(url, STR("http://[::1]"))))
        log_warn(NULL, "leased machines cannot reach " STR_FMT ": set public_url and link_listen", STR_ARG(url));
    else if (is_far && str_starts(url, STR("http:")))
        log_warn(NULL, "leased machines send their tokens unencrypted to " STR_FMT ": use https", STR_ARG(url));
}

static enum error open_door(struct daemon *daemon)
{
    if (!take_public_url(daemon)) {
        log_error(NULL, "public_url is too long");
        return ERR_TOO_LARGE;
    }
    warn_of_url(daemon);
    return bootstrap_open(NULL, &daemon->gateway.bootstrap);
}

/* -- life -- */

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < 1048576 ? limit.rlim_max : 1048576;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            log_warn(NULL, "the limit on open files stays low: %s", strerror(errno));
    }
}

static void catch_signals(struct loop *loop)
{
    struct sigaction action = {.sa_handler = on_signal};
    signal_loop = loop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static enum error start(struct daemon *daemon)
{
    struct redis_options redis = {.url = daemon->redis_url};
    enum error error = start_redis(daemon);
    if (error != ERR_NONE) {
        log_error(NULL, "Redis cannot be started: %s", error_text(error));
        return error;
    }
    error = redis_open(daemon->loop, &redis, &daemon->redis);
    if (error != ERR_NONE) {
        log_error(NULL, "the Redis URL is not understood");
        return error;
    }
    error = open_reactors(daemon);
    if (error == ERR_NONE)
        error = open_door(daemon);
    if (error != ERR_NONE)
        return error;
    struct control_options control = {.gateway = &daemon->gateway,
                                      .loop = daemon->loop,
                                      .redis = daemon->redis,
                                      .redis_url = daemon->redis_url,
                                      .journal_dir = daemon->journal_dir};
    error = control_open(&control, &daemon->gateway.control);
    if (error != ERR_NONE) {
        log_error(NULL, "the control thread cannot start: %s", error_text(error));
        return error;
    }
    return run_reactors(daemon);
}

static int64_t calls_running(const struct daemon *daemon)
{
    int64_t running = 0;
    for (size_t i = 0; i < daemon->gateway.reactor_count; i++)
        running += metrics_gauge(daemon->reactors[i]->metrics, METRIC_CALLS_RUNNING);
    return running;
}

static void stop(struct daemon *daemon)
{
    struct gateway *gateway = &daemon->gateway;
    int64_t deadline = clock_mono_ns() + CALLS_DRAIN_NS;
    if (gateway->control)
        control_shut(gateway->control);
    for (size_t i = 0; i < daemon->running; i++)
        reactor_quiesce(daemon->reactors[i]);
    while (daemon->running && calls_running(daemon) > 0 && clock_mono_ns() < deadline)
        loop_turn(daemon->loop, 20 * NS_PER_MS);
    for (size_t i = 0; i < daemon->running; i++)
        reactor_stop(daemon->reactors[i]);
    for (size_t i = 0; i < daemon->running; i++)
        pthread_join(daemon->threads[i], NULL);
    if (gateway->control) {
        control_give_back(gateway->control);
        deadline = clock_mono_ns() + IDLE_WAIT_NS;
        while (!control_is_idle(gateway->control) && clock_mono_ns() < deadline)
            loop_turn(daemon->loop, 10 * NS_PER_MS);
        gateway->control = control_free(gateway->control);
    }
    for (size_t i = 0; i < gateway->reactor_count; i++)
        daemon->reactors[i] = reactor_free(daemon->reactors[i]);
    gateway->bootstrap = bootstrap_free(gateway->bootstrap);
    daemon->redis = redis_free(daemon->redis);
    timer_clear(daemon->loop, &daemon->child_timer);
    daemon->redis_child = redis_child_stop(daemon->redis_child);
}

/* --check: what the adapters say of their rows comes after all else that read_options has checked. */
static int check_networks(struct daemon *daemon)
{
    char error[CONFIG_ERROR_MAX];
    bool is_good = networks_check(&daemon->settings, error) == ERR_NONE;
    if (is_good)
        puts("sluiced: the settings are in order");
    else
        fprintf(stderr, "sluiced: %s\n", error);
    settings_free(&daemon->settings);
    return is_good ? 0 : 2;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    read_options(argc, argv, &daemon);
    log_init("sluiced", (enum log_level)daemon.settings.log_level);
    if (daemon.check_only)
        return check_networks(&daemon);
    raise_file_limit();
    struct gateway *gateway = &daemon.gateway;
    gateway->settings = &daemon.settings;
    gateway->started_at_ms = clock_wall_ms();
    id_new("gwy_", gateway->id);
    if (!make_dirs(&daemon) || !load_admin_key(&daemon) || loop_open(&daemon.loop) != ERR_NONE) {
        log_error(NULL, "the data directory %s cannot be used: %s", daemon.settings.data_dir, strerror(errno));
        return 1;
    }
    gateway->control_loop = daemon.loop;
    catch_signals(daemon.loop);
    enum error error = start(&daemon);
    if (error == ERR_NONE) {
        log_info(NULL, "listening on http://%s:%u, links on port %u, %zu reactors", daemon.settings.listen.host,
                 daemon.port, control_link_port(gateway->control), gateway->reactor_count);
        loop_run(daemon.loop);
        log_info(NULL, "stopping");
    }
    stop(&daemon);
    loop_free(daemon.loop);
    settings_free(&daemon.settings);
    return error == ERR_NONE ? 0 : 1;
}
