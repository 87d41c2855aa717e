#include "tests/unit/cmocka_all.h"

#include "core/crypto.h"
#include "probes/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A serve_run over pipes in a thread of its own. */
static struct {
    struct signing_key *key;
    struct prover *prover;
    struct serve_options options;
    int to, from; /* our ends */
    pthread_t thread;
    enum error error;
} world;

static void *run(void *ctx)
{
    (void)ctx;
    world.error = serve_run(&world.options);
    close(world.options.out);
    return NULL;
}

static void pipes_open(enum serve_fault fault)
{
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    world.to = in[1];
    world.from = out[0];
    world.options =
        (struct serve_options){.prover = world.prover, .threads = 3, .fault = fault, .in = in[0], .out = out[1]};
}

static void start(enum serve_fault fault)
{
    pipes_open(fault);
    assert_int_equal(pthread_create(&world.thread, NULL, run, NULL), 0);
}

static enum error end(void)
{
    if (world.to >= 0)
        close(world.to);
    pthread_join(world.thread, NULL);
    close(world.from);
    close(world.options.in);
    return world.error;
}

static int setup(void **state)
{
    struct prover_options options = {.backend = &probe_backend_cpu, .devices = 1};
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (signing_key_new(&world.key) != ERR_NONE)
        return -1;
    options.key = world.key;
    return (int)prover_open(&options, &world.prover);
}

static int teardown(void **state)
{
    (void)state;
    prover_free(world.prover);
    signing_key_free(world.key);
    return 0;
}

/* -- envelopes -- */

static void put_raw(const void *bytes, size_t len)
{
    assert_int_equal(write(world.to, bytes, len), len);
}

static void put(uint64_t id, const void *frame, uint32_t len)
{
    uint8_t head[SERVE_HEAD];
    for (unsigned i = 0; i < 4; i++)
        head[i] = (uint8_t)(len >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        head[4 + i] = (uint8_t)(id >> (8 * i));
    put_raw(head, sizeof(head));
    put_raw(frame, len);
}

static void put_frame(uint64_t id, const struct probe_frame *frame)
{
    struct buf bytes;
    buf_init(&bytes, PROBE_FRAME_MAX);
    assert_true(probe_frame_encode(frame, &bytes));
    put(id, bytes.ptr, (uint32_t)bytes.len);
    buf_free(&bytes);
}

static void get_raw(void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = read(world.from, (char *)to + done, len - done);
        if (got < 0 && errno == EINTR)
            continue;
        assert_true(got > 0);
        done += (size_t)got;
    }
}

/* The id; the frame goes into *ret. */
static uint64_t get(struct buf *ret)
{
    uint8_t head[SERVE_HEAD];
    uint64_t len = 0, id = 0;
    get_raw(head, sizeof(head));
    for (unsigned i = 0; i < 4; i++)
        len |= (uint64_t)head[i] << (8 * i);
    for (unsigned i = 0; i < 8; i++)
        id |= (uint64_t)head[4 + i] << (8 * i);
    buf_clear(ret);
    ret->limit = PROBE_FRAME_MAX;
    assert_true(len > 0 && buf_reserve(ret, len));
    get_raw(ret->ptr, len);
    ret->len = len;
    return id;
}

static const struct probe_frame ping = {.type = PROBE_PING, .of.ping.nonce = {1, 2, 3}};

static struct probe_frame chain_challenge(void)
{
    struct probe_frame frame = {.type = PROBE_CHALLENGE};
    frame.of.challenge.id[0] = 1;
    frame.of.challenge.kind = PROBE_KIND_CHAIN;
    frame.of.challenge.of.chain.n = 64;
    frame.of.challenge.of.chain.blocks = 1;
    frame.of.challenge.of.chain.steps = 1;
    return frame;
}

static struct probe_frame chain_open(void)
{
    struct probe_frame frame = {.type = PROBE_OPEN};
    frame.of.open.id[0] = 1;
    frame.of.open.count = 2;
    frame.of.open.openings[1].index = 3;
    return frame;
}

static void answers_each_id_once(void **state)
{
    struct buf bytes = {0};
    bool seen[20] = {false};
    struct probe_frame pong;
    (void)state;
    start(SERVE_HONEST);
    for (uint64_t i = 0; i < 20; i++)
        put_frame(i << 40 | 7, &ping);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t id = get(&bytes);
        assert_int_equal(id & 0xff, 7);
        assert_true(id >> 40 < 20 && !seen[id >> 40]);
        seen[id >> 40] = true;
        assert_int_equal(probe_frame_decode(buf_str(&bytes), &pong), ERR_NONE);
        assert_int_equal(pong.type, PROBE_PONG);
    }
    put(5, "no frame", 8); /* the agent never looks into frames: the answer is one that says so */
    assert_int_equal(get(&bytes), 5);
    assert_int_equal(probe_frame_decode(buf_str(&bytes), &pong), ERR_NONE);
    assert_int_equal(pong.type, PROBE_ERROR);
    assert_int_equal(end(), ERR_NONE);
    buf_free(&bytes);
}

static void what_was_asked_is_answered_before_the_end(void **state)
{
    struct buf bytes = {0};
    (void)state;
    start(SERVE_HONEST);
    put_frame(9, &ping);
    close(world.to);
    world.to = -1;
    assert_int_equal(get(&bytes), 9);
    assert_int_equal(end(), ERR_NONE);
    buf_free(&bytes);
}

static void broken_envelopes_end_it(void **state)
{
    static const uint8_t cases[][SERVE_HEAD + 1] = {
        {0, 0, 0, 0, 1},             /* an empty frame */
        {1, 0, 16, 0, 1},            /* one byte more than a frame may have */
        {0xff, 0xff, 0xff, 0xff, 1}, /* much more */
        {9, 0, 0, 0, 1},             /* ends within the frame */
    };
    char byte;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        start(SERVE_HONEST);
        put_raw(cases[i], sizeof(cases[i]));
        assert_int_equal(end(), ERR_PROTOCOL);
    }
    start(SERVE_HONEST);
    put_raw(cases[3], 5); /* ends within the head */
    close(world.to);
    world.to = -1;
    assert_int_equal(read(world.from, &byte, 1), 0);
    assert_int_equal(end(), ERR_PROTOCOL);
}

static void an_agent_that_does_not_read_is_survived(void **state)
{
    (void)state;
    start(SERVE_HONEST);
    close(world.from);
    for (unsigned i = 0; i < 5; i++)
        put_frame(i, &ping);
    world.from = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(end(), ERR_NONE);
}

/* -- faults -- */

static void a_wrong_proof_differs_in_one_bit(void **state)
{
    struct probe_frame challenge = chain_challenge(), open = chain_open(), frame;
    struct buf honest = {0}, wrong = {0};
    unsigned bits = 0;
    (void)state;
    start(SERVE_HONEST);
    put_frame(1, &challenge);
    get(&honest);
    put_frame(2, &open);
    get(&honest);
    assert_int_equal(end(), ERR_NONE);
    start(SERVE_WRONG_PROOF);
    put_frame(1, &challenge);
    get(&wrong);
    assert_int_equal(probe_frame_decode(buf_str(&wrong), &frame), ERR_NONE);
    assert_int_equal(frame.type, PROBE_COMMIT);
    put_frame(2, &open);
    get(&wrong);
    assert_int_equal(end(), ERR_NONE);
    assert_int_equal(probe_frame_decode(buf_str(&wrong), &frame), ERR_NONE);
    assert_int_equal(frame.type, PROBE_PROOF);
    assert_int_equal(honest.len, wrong.len);
    for (size_t i = 0; i < honest.len; i++)
        bits += (unsigned)__builtin_popcount((unsigned)(uint8_t)(honest.ptr[i] ^ wrong.ptr[i]));
    assert_int_equal(bits, 1);
    buf_free(&honest);
    buf_free(&wrong);
}

static void silent_garbage_and_oversize(void **state)
{
    struct buf bytes = {0};
    struct probe_frame frame;
    char byte;
    (void)state;
    start(SERVE_SILENT);
    put_frame(1, &ping);
    close(world.to);
    world.to = -1;
    assert_int_equal(read(world.from, &byte, 1), 0); /* the end comes first */
    assert_int_equal(end(), ERR_NONE);
    start(SERVE_GARBAGE);
    put_frame(2, &ping);
    assert_int_equal(get(&bytes), 2);
    assert_int_equal(probe_frame_decode(buf_str(&bytes), &frame), ERR_PROTOCOL);
    assert_int_equal(end(), ERR_NONE);
    start(SERVE_OVERSIZE);
    put_frame(3, &ping);
    assert_int_equal(get(&bytes), 3);
    assert_int_equal(bytes.len, PROBE_FRAME_MAX);
    assert_int_equal(probe_frame_decode(buf_str(&bytes), &frame), ERR_PROTOCOL);
    assert_int_equal(end(), ERR_NONE);
    buf_free(&bytes);
}

/* Runs in a process of its own: the end of input comes while an answer is held back, and ends the process. */
static void a_late_proof_holds_up_commitments_only_and_no_end(void **state)
{
    struct probe_frame challenge = chain_challenge();
    struct buf bytes = {0};
    int status = -1;
    char byte;
    (void)state;
    pipes_open(SERVE_LATE_PROOF);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct prover *prover = NULL;
        struct prover_options options = {.backend = &probe_backend_cpu, .key = world.key, .devices = 1};
        close(world.to);
        close(world.from);
        if (prover_open(&options, &prover) != ERR_NONE)
            _exit(3);
        world.options.prover = prover;
        _exit(serve_run(&world.options) == ERR_NONE ? 4 : 5); /* serve_run ends the process before */
    }
    close(world.options.in);
    close(world.options.out);
    put_frame(1, &challenge);
    put_frame(2, &ping);
    assert_int_equal(get(&bytes), 2);
    close(world.to);
    assert_int_equal(read(world.from, &byte, 1), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(world.from);
    buf_free(&bytes);
}

static void names_of_faults(void **state)
{
    enum serve_fault fault = SERVE_HONEST;
    (void)state;
    assert_true(serve_fault_parse(STR("late-proof"), &fault));
    assert_int_equal(fault, SERVE_LATE_PROOF);
    assert_false(serve_fault_parse(STR("late"), &fault));
    assert_int_equal(fault, SERVE_LATE_PROOF);
    assert_true(serve_fault_parse(STR(""), &fault));
    assert_int_equal(fault, SERVE_HONEST);
}

/* -- options: none of these gets as far as a device -- */

static void wrong_options_are_usage(void **state)
{
    static char *const cases[][3] = {
        {"serve", "--bogus", NULL},   {"serve", "--json", NULL},       {"serve", "extra", NULL},
        {"serve", "--key", NULL},     {"serve", "--backend", "metal"}, {"claims", "--key", "file"},
        {"claims", "--bogus", "end"},
    };
    char *none[] = {"serve", "--backend", "cuda", NULL};
    (void)state;
    int kept = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(kept >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *argv[] = {cases[i][0], cases[i][1], cases[i][2], NULL};
        int argc = argv[2] ? 3 : 2;
        assert_int_equal(strcmp(argv[0], "serve") == 0 ? serve_command(argc, argv) : claims_command(argc, argv), 2);
    }
    if (probe_backend_cuda.count() == 0)
        assert_int_equal(serve_command(3, none), 1);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(null);
    assert_ptr_equal(serve_backend(STR("cpu")), &probe_backend_cpu);
    assert_null(serve_backend(STR("")));
}

/* -- the agent's own requests -- */

static void local(const char *request, struct buf *ret)
{
    buf_clear(ret);
    assert_int_equal(serve_local(world.prover, str_of(request), ret), ERR_NONE);
    assert_true(buf_append(ret, "", 1));
}

static void local_requests(void **state)
{
    static const char *const refused[] = {
        "",
        "[]",
        "{}",
        "{\"op\":1}",
        "{\"op\":\"claims\",\"more\":1}",
        "{\"op\":\"unseal\"}",
        "{\"op\":\"unseal\",\"gpu\":-1,\"context\":\"\",\"sealed\":\"00\"}",
        "{\"op\":\"unseal\",\"gpu\":16,\"context\":\"\",\"sealed\":\"00\"}",
        "{\"op\":\"unseal\",\"gpu\":0,\"context\":\"0\",\"sealed\":\"00\"}",
        "{\"op\":\"unseal\",\"gpu\":0,\"context\":\"zz\",\"sealed\":\"00\"}",
        "{\"op\":\"unseal\",\"gpu\":0,\"context\":\"\",\"sealed\":\"00\",\"x\":1}",
        "{\"op\":\"unseal\",\"gpu\":0,\"context\":\"\",\"sealed\":\"00\"}",
        "{\"op\":\"claims\",\"op\":\"claims\"}",
        "{\"op\":\"claims\"} and more",
    };
    struct buf answer = {0};
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        local(refused[i], &answer);
        if (strncmp(answer.ptr, "{\"error\":\"", 10) != 0)
            fail_msg("%s: %s", refused[i], answer.ptr);
    }
    local("{\"op\":\"claims\"}", &answer);
    assert_int_equal(strncmp(answer.ptr, "{\"claims\":[{", 12), 0);
    assert_non_null(strstr(answer.ptr, "\"name\":\"cpu\""));
    buf_free(&answer);
}

static void unsealing_over_the_pipe(void **state)
{
    struct probe_frame challenge = chain_challenge(), hello = {.type = PROBE_HELLO_ASK}, frame;
    struct buf bytes = {0}, sealed = {0}, request = {0};
    uint8_t exchange[32];
    char hex[512];
    (void)state;
    sealed.limit = request.limit = 4096;
    start(SERVE_GARBAGE); /* faults are for gateways' frames */
    assert_int_equal(prover_answer(world.prover, STR(""), &sealed), ERR_NONE);
    buf_clear(&sealed);
    assert_true(probe_frame_encode(&hello, &request));
    assert_int_equal(prover_answer(world.prover, buf_str(&request), &sealed), ERR_NONE);
    assert_int_equal(probe_frame_decode(buf_str(&sealed), &frame), ERR_NONE);
    memcpy(exchange, frame.of.hello.exchange_key, 32);
    buf_clear(&request);
    buf_clear(&sealed);
    assert_true(probe_frame_encode(&challenge, &request));
    assert_int_equal(prover_answer(world.prover, buf_str(&request), &sealed), ERR_NONE);
    assert_int_equal(probe_frame_decode(buf_str(&sealed), &frame), ERR_NONE);
    uint8_t root[32];
    memcpy(root, frame.of.commit.roots[0], 32);
    buf_clear(&sealed);
    assert_int_equal(seal(exchange, root, STR("\x01\x02"), STR("token"), &sealed), ERR_NONE);
    crypto_hex((uint8_t *)sealed.ptr, sealed.len, hex);
    buf_clear(&request);
    assert_true(buf_printf(&request, "{\"op\":\"unseal\",\"gpu\":0,\"context\":\"0102\",\"sealed\":\"%s\"}", hex));
    put(SERVE_LOCAL | 3, request.ptr, (uint32_t)request.len);
    assert_int_equal(get(&bytes), SERVE_LOCAL | 3);
    assert_true(str_eq(buf_str(&bytes), STR("{\"text\":\"746f6b656e\"}")));
    assert_int_equal(end(), ERR_NONE);
    buf_free(&bytes);
    buf_free(&sealed);
    buf_free(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_proof_holds_up_commitments_only_and_no_end), /* first: forks before there are threads */
        cmocka_unit_test(answers_each_id_once),
        cmocka_unit_test(what_was_asked_is_answered_before_the_end),
        cmocka_unit_test(broken_envelopes_end_it),
        cmocka_unit_test(an_agent_that_does_not_read_is_survived),
        cmocka_unit_test(a_wrong_proof_differs_in_one_bit),
        cmocka_unit_test(silent_garbage_and_oversize),
        cmocka_unit_test(names_of_faults),
        cmocka_unit_test(wrong_options_are_usage),
        cmocka_unit_test(local_requests),
        cmocka_unit_test(unsealing_over_the_pipe),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
