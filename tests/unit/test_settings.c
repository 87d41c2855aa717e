#include "tests/unit/cmocka_all.h"

#include "core/log.h"
#include "gateway/settings.h"

#include <string.h>
#include <unistd.h>

/* A file with that text; the path is good until the next call. */
static const char *file_of(const char *text)
{
    static char path[64];
    strcpy(path, "/tmp/test_settings_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static enum error load(const char *text, struct settings *ret, char *error)
{
    const char *path = file_of(text);
    enum error failed = settings_load(path, ret, error);
    unlink(path);
    /* The tables leave the file's name out. */
    size_t len = strlen(path);
    if (failed && strncmp(error, path, len) == 0)
        memmove(error, error + len, strlen(error + len) + 1);
    return failed;
}

static void check_defaults(const struct settings *settings)
{
    assert_string_equal(settings->listen.host, "127.0.0.1");
    assert_int_equal(settings->listen.port, 8080);
    assert_string_equal(settings->data_dir, "./var");
    assert_int_equal(settings->threads, 0);
    assert_string_equal(settings->redis_url, "");
    assert_string_equal(settings->link_listen.host, "");
    assert_int_equal(settings->limits.body_bytes, 33554432);
    assert_int_equal(settings->limits.header_bytes, 65536);
    assert_int_equal(settings->limits.queue_per_model, 256);
    assert_int_equal(settings->limits.queue_wait_ms, 30000);
    assert_int_equal(settings->limits.head_ms, 10000);
    assert_int_equal(settings->limits.body_min_bps, 1024);
    assert_int_equal(settings->limits.write_stall_ms, 60000);
    assert_int_equal(settings->probes.admission, PROBE_REQUIRED);
    assert_int_equal(settings->probes.mismatch, MISMATCH_RECLASS);
    assert_int_equal(settings->probes.reprobe_min_s, 300);
    assert_int_equal(settings->probes.reprobe_max_s, 3600);
    assert_int_equal(settings_check_answers_bps(settings), 100);
    assert_int_equal(settings->probes.newcomer_exposure_usd_nano, 1000000000);
    assert_true(settings->probes.canaries && settings->probes.slot);
    assert_int_equal(settings->pricing.settle, SETTLE_JOURNAL);
    assert_int_equal(settings->pricing.take_rates.count, 1);
    assert_int_equal(settings_take_bps(settings, STR("anyone")), 1000);
    assert_int_equal(settings->log_level, LOG_INFO);
    assert_null(settings->metrics_token);
    assert_int_equal(settings->networks.count, 0);
    assert_string_equal(settings->public_url, "");
    assert_int_equal(settings->rates.count, 0);
    assert_int_equal(settings->aliases.count, 0);
}

static void defaults(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    assert_int_equal(settings_load(NULL, &settings, error), ERR_NONE);
    check_defaults(&settings);
    settings_free(&settings);
    static const char *const empty[] = {"", "# nothing\n", "---\n", "limits:\nnetworks:\n",
                                        "listen: ~\nthreads: null\n"};
    for (size_t i = 0; i < sizeof(empty) / sizeof(*empty); i++) {
        if (load(empty[i], &settings, error))
            fail_msg("%s: %s", empty[i], error);
        check_defaults(&settings);
        settings_free(&settings);
    }
    settings_free(NULL);
}

static void everything(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX], text[2048];
    struct settings settings;
    setenv("TEST_SETTINGS_TOKEN", "t0ken", 1);
    const char *path = file_of("s3cret\n");
    snprintf(text, sizeof(text),
             "listen: \"[::1]:9000\"\ndata_dir: /srv/sluice\nthreads: 4\nredis: {url: \"unix:///run/r.sock\"}\n"
             "link_listen: 0.0.0.0:9001\nlink_advertise: gate.example:9001\nlink_tls: {cert: c.pem, key: k.pem}\n"
             "limits:\n  body_bytes: 8MiB\n  queue_wait_ms: 5s\n  head_ms: \"250 ms\"\n"
             "probes: {catalogue: /dev/null, admission: off, reprobe_min_s: 5, reprobe_max_s: 5, mismatch: suspend,\n"
             "  check_answers: 0.3, newcomer_exposure_usd: \"0.25\", canaries: off, slot: off}\n"
             "pricing:\n  settle: redis\n  take_rates:\n    - {supplier: acme, bps: 0}\n    - supplier: '*'\n      "
             "bps: 250\n"
             "models: {aliases: {gpt-4o-mini: gemma-3-270m, \"7\": seven}}\nmetrics: {token: env:TEST_SETTINGS_TOKEN}\n"
             "log: {level: warn}\n"
             "networks:\n  - {id: own, adapter: native, credential: {api_key: \"file:%s\"}, probe: report,\n"
             "     max_price_per_gpu_hour_usd: \"5.00\", options: {region: eu, \"7\": seven}, markup_bps: 250,\n"
             "     offers_ttl_s: 45, reconcile_s: 5, orphan_grace_s: 0}\n  - {id: two, adapter: native, poll_s: 60}\n"
             "public_url: https://gate.example:8443\n"
             "rates: [{currency: AKT, usd: \"0.7312\"}]\n",
             path);
    char secret_path[64];
    strcpy(secret_path, path);
    if (load(text, &settings, error))
        fail_msg("%s", error);
    unlink(secret_path);
    assert_string_equal(settings.listen.host, "::1");
    assert_int_equal(settings.listen.port, 9000);
    assert_string_equal(settings.redis_url, "unix:///run/r.sock");
    assert_string_equal(settings.link_advertise.host, "gate.example");
    assert_int_equal(settings.limits.body_bytes, 8 << 20);
    assert_int_equal(settings.limits.queue_wait_ms, 5000);
    assert_int_equal(settings.limits.head_ms, 250);
    assert_int_equal(settings.probes.admission, PROBE_OFF);
    assert_string_equal(settings.probes.catalogue, "/dev/null");
    assert_int_equal(settings.probes.mismatch, MISMATCH_SUSPEND);
    assert_int_equal(settings_check_answers_bps(&settings), 3000);
    assert_int_equal(settings.probes.newcomer_exposure_usd_nano, 250000000);
    assert_false(settings.probes.canaries || settings.probes.slot);
    assert_int_equal(settings.pricing.settle, SETTLE_REDIS);
    assert_int_equal(settings_take_bps(&settings, STR("acme")), 0);
    assert_int_equal(settings_take_bps(&settings, STR("other")), 250);
    assert_string_equal(config_map_get(&settings.aliases, STR("gpt-4o-mini")), "gemma-3-270m");
    assert_string_equal(config_map_get(&settings.aliases, STR("7")), "seven");
    assert_string_equal(settings.metrics_token, "t0ken");
    assert_int_equal(settings.log_level, LOG_WARN);
    const struct settings_network *networks = settings.networks.items;
    assert_int_equal(settings.networks.count, 2);
    assert_string_equal(config_map_get(&networks[0].credential, STR("api_key")), "s3cret");
    assert_int_equal(networks[0].probe, PROBE_REPORT);
    assert_int_equal(networks[0].max_price_per_gpu_hour_usd_nano, 5000000000);
    assert_int_equal(networks[1].poll_s, 60);
    assert_int_equal(networks[1].max_price_per_gpu_hour_usd_nano, -1);
    assert_string_equal(config_map_get(&networks[0].options, STR("region")), "eu");
    assert_string_equal(config_map_get(&networks[0].options, STR("7")), "seven");
    assert_int_equal(networks[0].markup_bps, 250);
    assert_int_equal(networks[1].markup_bps, 0);
    assert_int_equal(settings_offers_ttl_ms(&networks[0]), 45000);
    assert_int_equal(settings_offers_ttl_ms(&networks[1]), 180000);
    assert_int_equal(settings_offers_ttl_ms(&(struct settings_network){.poll_s = 1}), 15000);
    assert_int_equal(networks[0].reconcile_s, 5);
    assert_int_equal(networks[1].reconcile_s, 60);
    assert_int_equal(networks[0].orphan_grace_s, 0);
    assert_int_equal(networks[1].orphan_grace_s, 120);
    assert_string_equal(settings.public_url, "https://gate.example:8443");
    struct rates rates;
    struct rate rate;
    settings_rates(&settings, &rates);
    assert_int_equal(rates_find(&rates, STR("akt"), 1, &rate), ERR_NONE);
    assert_int_equal(rate.digits, 7312);
    settings_free(&settings);
}

static void errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"lisen: x\n", ":1: lisen: unknown key"},
        {"limits:\n  body_byte: 1\n", ":2: limits.body_byte: unknown key"},
        {"limits.body_bytes: 5000\n", ":1: limits.body_bytes: unknown key"},
        {"threads: 1\nthreads: 2\n", ":2: threads: is given twice"},
        {"limits: {}\nlimits: {}\n", ":2: limits: is given twice"},
        {"[1]\n", ":1: must be a map"},
        {"just text\n", ":1: must be a map"},
        {"? [a]\n: b\n", ":1: ?: unknown key"},
        {"limits: 5\n", ":1: limits: must be a map"},
        {"threads: [1]\n", ":1: threads: must be a single value"},
        {"threads: \"1\"\n", ":1: threads: must not be in quotes"},
        {"threads: many\n", ":1: threads: must be a whole number from 0 to 256"},
        {"threads: 257\n", ":1: threads: must be a whole number from 0 to 256"},
        {"threads: -1\n", ":1: threads: must be a whole number from 0 to 256"},
        {"threads: 1.5\n", ":1: threads: must be a whole number from 0 to 256"},
        {"\n\nlimits:\n  body_bytes: 5 MB\n",
         ":4: limits.body_bytes: must be a whole number from 1024 to 1073741824, or one with KiB MiB GiB"},
        {"limits: {body_bytes: 9999999999GiB}\n",
         ":1: limits.body_bytes: must be a whole number from 1024 to 1073741824, or one with KiB MiB GiB"},
        {"limits: {head_ms: 1d}\n",
         ":1: limits.head_ms: must be a whole number from 10 to 3600000, or one with ms s m h"},
        {"listen: 8080\n", ":1: listen: must be HOST:PORT, an IPv6 host in brackets"},
        {"listen: ::1:80\n", ":1: listen: must be HOST:PORT, an IPv6 host in brackets"},
        {"listen: a:65536\n", ":1: listen: must be HOST:PORT, an IPv6 host in brackets"},
        {"listen: a b:1\n", ":1: listen: must be HOST:PORT, an IPv6 host in brackets"},
        {"listen: ''\n", ": listen: must not be empty"},
        {"data_dir: \"a\\0b\"\n", ":1: data_dir: must be a single value"},
        {"data_dir: ''\n", ": data_dir: must not be empty"},
        {"log: {level: loud}\n", ":1: log.level: must be one of debug, info, warn, error"},
        {"metrics: {token: s3cret}\n", ":1: metrics.token: must be env:NAME or file:PATH, never the secret itself"},
        {"metrics: {token: env:TEST_SETTINGS_NOT_SET}\n",
         ":1: metrics.token: the environment variable TEST_SETTINGS_NOT_SET is not set"},
        {"metrics: {token: file:/nonexistent/x}\n", ":1: metrics.token: the file /nonexistent/x cannot be read"},
        {"metrics: {token: file:/dev/null}\n", ":1: metrics.token: the file /dev/null must hold one line"},
        {"pricing: {take_rates: {}}\n", ":1: pricing.take_rates: must be a list"},
        {"pricing: {take_rates: [5]}\n", ":1: pricing.take_rates[0]: must be a map"},
        {"pricing:\n  take_rates:\n    - {supplier: a, bps: 1}\n    - {supplier: b}\n",
         ":4: pricing.take_rates[1]: lacks 'bps'"},
        {"pricing: {take_rates: [{supplier: a, bps: 10001}]}\n",
         ":1: pricing.take_rates[0].bps: must be a whole number from 0 to 10000"},
        {"pricing: {take_rates: [{supplier: a, bsp: 1}]}\n", ":1: pricing.take_rates[0].bsp: unknown key"},
        {"pricing: {take_rates: [{supplier: a, bps: 1, bps: 2}]}\n", ":1: pricing.take_rates[0].bps: is given twice"},
        {"models: {aliases: [a]}\n", ":1: models.aliases: must be a map"},
        {"models: {aliases: {a: [b]}}\n", ":1: models.aliases.a: must be a single value"},
        {"models: {aliases: {a: }}\n", ":1: models.aliases.a: must be a single value"},
        {"models: {aliases: {a: ''}}\n", ": models.aliases: a model's name is empty"},
        {"models: {aliases: {a: b, a: c}}\n", ":1: models.aliases.a: is given twice"},
        {"link_tls: {cert: x}\n", ": link_tls: cert and key go together"},
        {"probes: {reprobe_min_s: 10, reprobe_max_s: 5}\n",
         ": probes.reprobe_min_s: is larger than probes.reprobe_max_s"},
        {"probes: {check_answers: 0.31}\n", ": probes.check_answers: must be a number from 0 to 0.3"},
        {"probes: {check_answers: often}\n", ": probes.check_answers: must be a number from 0 to 0.3"},
        {"probes: {newcomer_exposure_usd: \"\"}\n", ": probes.newcomer_exposure_usd: must be an amount"},
        {"probes: {slot: true}\n", ":1: probes.slot: must be one of off, on"},
        {"probes: {catalogue: /nonexistent/c.yaml}\n", ": probes.catalogue: /nonexistent/c.yaml: cannot be read"},
        {"networks: [{adapter: native}]\n", ":1: networks[0]: lacks 'id'"},
        {"networks: [{id: '', adapter: native}]\n", ": networks[0].id: must not be empty"},
        {"networks: [{id: a b, adapter: native}]\n",
         ": networks[0].id: must be at most 23 letters, digits, '-' or '_'"},
        {"networks: [{id: abcdefghijklmnopqrstuvwx, adapter: native}]\n",
         ": networks[0].id: must be at most 23 letters, digits, '-' or '_'"},
        {"networks: [{id: a, adapter: native, options: {a: [b]}}]\n",
         ":1: networks[0].options.a: must be a single value"},
        {"networks: [{id: a, adapter: native, markup_bps: 10001}]\n",
         ":1: networks[0].markup_bps: must be a whole number from 0 to 10000"},
        {"rates: [{currency: AKT}]\n", ":1: rates[0]: lacks 'usd'"},
        {"rates: [{currency: AKT, usd: much}]\n",
         ": rates[0]: must be a currency's name and a decimal amount such as \"0.7312\""},
        {"rates: [{currency: USD, usd: \"1\"}]\n", ": rates[0]: this currency's rate is fixed or follows from another"},
        {"public_url: gate.example\n", ": public_url: must be http://HOST[:PORT] or https://HOST[:PORT]"},
        {"public_url: \"http://a b\"\n", ": public_url: must be http://HOST[:PORT] or https://HOST[:PORT]"},
        {"public_url: \"https:///x\"\n", ": public_url: must be http://HOST[:PORT] or https://HOST[:PORT]"},
        {"networks: [{id: Native, adapter: fake}]\n", ": networks[0].id: 'native' means our own workers"},
        {"networks: [{id: a, adapter: native}, {id: A, adapter: native}]\n",
         ": networks[1].id: 'A' is taken by another network"},
        {"networks: [{id: a, adapter: native, credential: {api_key: plain}}]\n",
         ":1: networks[0].credential.api_key: must be env:NAME or file:PATH, never the secret itself"},
        {"networks: [{id: a, adapter: native, max_price_per_gpu_hour_usd: cheap}]\n",
         ":1: networks[0].max_price_per_gpu_hour_usd: must be an amount of US dollars such as \"1.25\", with at most 9 "
         "digits after the point"},
        {"threads: 1\n---\nthreads: 2\n", ":3: only one document may be in the file"},
        {"limits: {\n", ":2: did not find expected node content"},
        {"a: b: c\n", ":1: mapping values are not allowed in this context"},
        {"threads: 1\nlisten: [\n", ":3: did not find expected node content"},
        {"threads: *x\n", ":1: found undefined alias"},
    };
    unsetenv("TEST_SETTINGS_NOT_SET");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char error[CONFIG_ERROR_MAX];
        struct settings settings, zero;
        memset(&zero, 0, sizeof(zero));
        if (load(cases[i].text, &settings, error) == ERR_NONE)
            fail_msg("%s was taken", cases[i].text);
        assert_string_equal(error, cases[i].error);
        assert_memory_equal(&settings, &zero, sizeof(zero));
    }
}

/* Who mistypes an adapter is told which there are. */
static void adapters_told(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    assert_int_equal(load("networks: [{id: a, adapter: fast}]\n", &settings, error), ERR_BAD_INPUT);
    assert_non_null(strstr(error, ": networks[0].adapter: adapter fast is not built in; these are: native"));
    assert_non_null(strstr(error, ", fake"));
}

static void files(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    assert_int_equal(settings_load("/nonexistent/sluice.yaml", &settings, error), ERR_SYSTEM);
    assert_string_equal(error, "/nonexistent/sluice.yaml: cannot be read");
    assert_int_equal(settings_load("/dev/zero", &settings, error), ERR_TOO_LARGE);
    assert_string_equal(error, "/dev/zero: larger than a configuration may be");
}

/* What is wrong in the catalogue is told with its own file and line. */
static void catalogue_file(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX], catalogue[64], text[128];
    struct settings settings;
    strcpy(catalogue, file_of("classes:\n  - name: nvidia/l4-24\n    pass: 200\n"));
    snprintf(text, sizeof(text), "probes: {catalogue: %s}\n", catalogue);
    assert_int_equal(load(text, &settings, error), ERR_BAD_INPUT);
    snprintf(text, sizeof(text), ": probes.catalogue: %s:3: classes[0].pass: unknown key", catalogue);
    assert_string_equal(error, text);
    unlink(catalogue);
}

static void options(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    struct settings settings;
    assert_int_equal(settings_load(NULL, &settings, error), ERR_NONE);
    assert_int_equal(settings_set(&settings, "listen", "0.0.0.0:0", "--listen", error), ERR_NONE);
    assert_string_equal(settings.listen.host, "0.0.0.0");
    assert_int_equal(settings_set(&settings, "data_dir", "/x", "--data-dir", error), ERR_NONE);
    assert_string_equal(settings.data_dir, "/x");
    assert_int_equal(settings_set(&settings, "threads", "x", "--threads", error), ERR_BAD_INPUT);
    assert_string_equal(error, "--threads: must be a whole number from 0 to 256");
    assert_int_equal(settings.threads, 0);
    settings_free(&settings);
}

/* deploy/sluice.yaml is the reference, and gives the defaults. */
static void reference(void **state)
{
    (void)state;
    char error[CONFIG_ERROR_MAX];
    static char file[64 << 10];
    struct settings settings;
    struct buf text;
    buf_init(&text, 0);
    assert_true(settings_reference(&text));
    FILE *stream = fopen("deploy/sluice.yaml", "re");
    assert_non_null(stream);
    size_t len = fread(file, 1, sizeof(file), stream);
    fclose(stream);
    if (!str_eq(buf_str(&text), (struct str){file, len}))
        fail_msg("deploy/sluice.yaml must read:\n" STR_FMT, STR_ARG(buf_str(&text)));
    if (settings_load("deploy/sluice.yaml", &settings, error))
        fail_msg("%s", error);
    check_defaults(&settings);
    settings_free(&settings);
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),  cmocka_unit_test(everything),    cmocka_unit_test(errors),
        cmocka_unit_test(files),     cmocka_unit_test(options),       cmocka_unit_test(catalogue_file),
        cmocka_unit_test(reference), cmocka_unit_test(adapters_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
