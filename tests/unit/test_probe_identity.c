#include "tests/unit/cmocka_all.h"

#include "core/crypto.h"
#include "probes/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* RFC 8032, section 7.1, test 1 (the key as PKCS #8) and test 3. */
#define RFC_PEM                                                                                                        \
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE " \
    "KEY-----\n"
#define RFC_PUBLIC "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define RFC_SIGNATURE                                                  \
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155" \
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
#define RFC3_PUBLIC "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
#define RFC3_SIGNATURE                                                 \
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac" \
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"

static char folder[64], path[96];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/test_identity.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/key.pem", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when a file was left behind */
}

static void put_file(const char *text, size_t len, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void unhex(const char *hex, uint8_t *ret, size_t len)
{
    assert_true(crypto_unhex(str_of(hex), ret, len));
}

static void known_answers(void **state)
{
    struct signing_key *key;
    uint8_t public_key[32], expected[32], signature[64], expected_signature[64];
    (void)state;
    put_file(RFC_PEM, strlen(RFC_PEM), 0600);
    assert_int_equal(signing_key_load(path, &key), ERR_NONE);
    signing_key_public(key, public_key);
    unhex(RFC_PUBLIC, expected, 32);
    assert_memory_equal(public_key, expected, 32);
    assert_int_equal(signing_key_sign(key, STR(""), signature), ERR_NONE);
    unhex(RFC_SIGNATURE, expected_signature, 64);
    assert_memory_equal(signature, expected_signature, 64);
    assert_true(signature_check(public_key, STR(""), signature));
    unhex(RFC3_PUBLIC, public_key, 32);
    unhex(RFC3_SIGNATURE, signature, 64);
    assert_true(signature_check(public_key, STR("\xaf\x82"), signature));
    assert_false(signature_check(public_key, STR("\xaf\x83"), signature));
    assert_null(signing_key_free(key));
}

static void any_changed_bit_breaks_a_signature(void **state)
{
    struct signing_key *key;
    uint8_t public_key[32], signature[64];
    char text[] = "what was signed";
    (void)state;
    assert_int_equal(signing_key_new(&key), ERR_NONE);
    signing_key_public(key, public_key);
    assert_int_equal(signing_key_sign(key, str_of(text), signature), ERR_NONE);
    assert_true(signature_check(public_key, str_of(text), signature));
    for (size_t bit = 0; bit < sizeof(signature) * 8; bit += 3) {
        signature[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_false(signature_check(public_key, str_of(text), signature));
        signature[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    text[3] ^= 1;
    assert_false(signature_check(public_key, str_of(text), signature));
    text[3] ^= 1;
    public_key[0] ^= 1;
    assert_false(signature_check(public_key, str_of(text), signature));
    memset(public_key, 0xff, 32); /* no point of the curve */
    assert_false(signature_check(public_key, str_of(text), signature));
    signing_key_free(key);
}

static void a_key_is_made_once(void **state)
{
    struct signing_key *first, *second;
    uint8_t one[32], two[32];
    struct stat stat_of;
    (void)state;
    unlink(path);
    assert_int_equal(signing_key_load(path, &first), ERR_NONE);
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0600);
    assert_int_equal(stat_of.st_nlink, 1);
    assert_int_equal(signing_key_load(path, &second), ERR_NONE);
    signing_key_public(first, one);
    signing_key_public(second, two);
    assert_memory_equal(one, two, 32);
    signing_key_free(first);
    signing_key_free(second);
}

static void refused_files(void **state)
{
    static const mode_t loose[] = {0640, 0604, 0620, 0660, 0644, 0777};
    struct signing_key *key = NULL;
    char other[112];
    (void)state;
    for (size_t i = 0; i < sizeof(loose) / sizeof(*loose); i++) {
        put_file(RFC_PEM, strlen(RFC_PEM), loose[i]);
        assert_int_equal(signing_key_load(path, &key), ERR_DENIED);
    }
    put_file(RFC_PEM, strlen(RFC_PEM), 0400);
    assert_int_equal(signing_key_load(path, &key), ERR_NONE);
    key = signing_key_free(key);
    for (size_t len = 0; len < strlen(RFC_PEM) - 2; len++) { /* the last character and the line feed are not needed */
        put_file(RFC_PEM, len, 0600);
        assert_int_equal(signing_key_load(path, &key), ERR_BAD_INPUT);
    }
    char large[5000];
    memset(large, '\n', sizeof(large));
    memcpy(large, RFC_PEM, strlen(RFC_PEM));
    put_file(large, sizeof(large), 0600);
    assert_int_equal(signing_key_load(path, &key), ERR_BAD_INPUT);
    snprintf(other, sizeof(other), "%s.other", path); /* a link, to a good key */
    put_file(RFC_PEM, strlen(RFC_PEM), 0600);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(signing_key_load(path, &key), ERR_DENIED);
    unlink(other);
    assert_int_equal(signing_key_load(path, &key), ERR_DENIED); /* a link to nothing is not made a key of */
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(signing_key_load(path, &key), ERR_DENIED);
    assert_int_equal(signing_key_load("/nowhere/at/all/key.pem", &key), ERR_SYSTEM);
    assert_null(key);
}

static void another_kind_of_key_is_refused(void **state)
{
    /* X25519 */
    static const char pem[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                              "-----END PRIVATE KEY-----\n";
    struct signing_key *key = NULL;
    (void)state;
    put_file(pem, sizeof(pem) - 1, 0600);
    assert_int_equal(signing_key_load(path, &key), ERR_BAD_INPUT);
}

/* -- sealing -- */

static struct exchange_key *mine, *theirs;
static uint8_t my_public[32], root[32];

static int keys_setup(void **state)
{
    (void)state;
    memset(root, 7, sizeof(root));
    if (exchange_key_new(&mine) != ERR_NONE || exchange_key_new(&theirs) != ERR_NONE)
        return -1;
    exchange_key_public(mine, my_public);
    return 0;
}

static int keys_teardown(void **state)
{
    (void)state;
    exchange_key_free(mine);
    exchange_key_free(theirs);
    return exchange_key_free(NULL) != NULL;
}

static void opened_by_its_receiver_only(void **state)
{
    struct str context = STR("lease lse_1"), text = STR("a secret of 24 characters");
    struct buf sealed, opened;
    (void)state;
    buf_init(&sealed, 0);
    buf_init(&opened, 0);
    assert_int_equal(seal(my_public, root, context, text, &sealed), ERR_NONE);
    assert_int_equal(sealed.len, text.len + SEAL_OVERHEAD);
    assert_int_equal(seal_open(mine, root, context, buf_str(&sealed), &opened), ERR_NONE);
    assert_true(str_eq(buf_str(&opened), text));
    buf_clear(&opened);
    assert_int_equal(seal_open(theirs, root, context, buf_str(&sealed), &opened), ERR_DENIED);
    assert_int_equal(seal_open(mine, root, STR("lease lse_2"), buf_str(&sealed), &opened), ERR_DENIED);
    assert_int_equal(seal_open(mine, root, STR(""), buf_str(&sealed), &opened), ERR_DENIED);
    root[31] ^= 1;
    assert_int_equal(seal_open(mine, root, context, buf_str(&sealed), &opened), ERR_DENIED);
    root[31] ^= 1;
    for (size_t bit = 0; bit < sealed.len * 8; bit++) {
        sealed.ptr[bit / 8] = (char)(sealed.ptr[bit / 8] ^ (1 << (bit % 8)));
        if (seal_open(mine, root, context, buf_str(&sealed), &opened) != ERR_DENIED) /* the top bit of X25519 too */
            fail_msg("bit %zu", bit);
        sealed.ptr[bit / 8] = (char)(sealed.ptr[bit / 8] ^ (1 << (bit % 8)));
    }
    for (size_t len = 0; len < sealed.len; len++)
        assert_int_equal(seal_open(mine, root, context, (struct str){sealed.ptr, len}, &opened), ERR_DENIED);
    assert_int_equal(opened.len, 0);
    buf_free(&sealed);
    buf_free(&opened);
}

static void two_seals_differ(void **state)
{
    struct buf one, two;
    (void)state;
    buf_init(&one, 0);
    buf_init(&two, 0);
    assert_int_equal(seal(my_public, root, STR(""), STR("x"), &one), ERR_NONE);
    assert_int_equal(seal(my_public, root, STR(""), STR("x"), &two), ERR_NONE);
    assert_memory_not_equal(one.ptr, two.ptr, 32);
    assert_int_equal(seal_open(mine, root, STR(""), buf_str(&two), &one), ERR_NONE);
    assert_int_equal(one.ptr[49], 'x'); /* appended */
    buf_free(&one);
    buf_free(&two);
}

static void limits_of_sealing(void **state)
{
    static char text[SEAL_TEXT_MAX + 1], context[513];
    static const uint8_t zero[32]; /* of small order: every product is zero */
    struct buf sealed, opened;
    (void)state;
    buf_init(&sealed, 0);
    buf_init(&opened, 0);
    assert_int_equal(seal(my_public, root, STR("c"), (struct str){text, sizeof(text)}, &sealed), ERR_TOO_LARGE);
    assert_int_equal(seal(my_public, root, STR("c"), STR(""), &sealed), ERR_BAD_INPUT);
    assert_int_equal(seal(my_public, root, (struct str){context, 513}, STR("x"), &sealed), ERR_TOO_LARGE);
    assert_int_equal(seal(zero, root, STR("c"), STR("x"), &sealed), ERR_BAD_INPUT);
    assert_int_equal(sealed.len, 0);
    assert_int_equal(seal(my_public, root, (struct str){context, 512}, (struct str){text, SEAL_TEXT_MAX}, &sealed),
                     ERR_NONE);
    assert_int_equal(seal_open(mine, root, (struct str){context, 512}, buf_str(&sealed), &opened), ERR_NONE);
    assert_int_equal(opened.len, SEAL_TEXT_MAX);
    buf_clear(&opened);
    memset(sealed.ptr, 0, 32);
    assert_int_equal(seal_open(mine, root, (struct str){context, 512}, buf_str(&sealed), &opened), ERR_DENIED);
    assert_int_equal(opened.len, 0);
    buf_free(&sealed);
    buf_free(&opened);
}

/* HKDF by RFC 5869 from HMAC alone: 44 bytes are two blocks. */
static void hkdf(const uint8_t *salt, const uint8_t *secret, const uint8_t *info, size_t info_len, uint8_t ret[64])
{
    uint8_t prk[32], block[32 + 256 + 1];
    unsigned len;
    HMAC(EVP_sha256(), salt, 32, secret, 32, prk, &len);
    memcpy(block, info, info_len);
    block[info_len] = 1;
    HMAC(EVP_sha256(), prk, 32, block, info_len + 1, ret, &len);
    memcpy(block, ret, 32);
    memcpy(block + 32, info, info_len);
    block[32 + info_len] = 2;
    HMAC(EVP_sha256(), prk, 32, block, 32 + info_len + 1, ret + 32, &len);
}

/* Opens a sealed text by the description in the header, without the code under test. */
static void the_format_is_as_described(void **state)
{
    struct str context = STR("ctx");
    struct buf sealed;
    uint8_t public_key[32], secret[32], info[13 + 64 + 3], keys[64];
    size_t len = 32;
    (void)state;
    buf_init(&sealed, 0);
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    assert_int_equal(EVP_PKEY_get_raw_public_key(key, public_key, &len), 1);
    assert_int_equal(seal(public_key, root, context, STR("hello"), &sealed), ERR_NONE);
    EVP_PKEY *sender = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, (uint8_t *)sealed.ptr, 32);
    EVP_PKEY_CTX *derive = EVP_PKEY_CTX_new(key, NULL);
    assert_int_equal(EVP_PKEY_derive_init(derive), 1);
    assert_int_equal(EVP_PKEY_derive_set_peer(derive, sender), 1);
    assert_int_equal(EVP_PKEY_derive(derive, secret, &len), 1);
    memcpy(info, "sluice seal 1", 13);
    memcpy(info + 13, public_key, 32);
    memcpy(info + 45, sealed.ptr, 32);
    memcpy(info + 77, context.ptr, 3);
    hkdf(root, secret, info, sizeof(info), keys);
    char text[16];
    int got = 0, rest = 0;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, keys, keys + 32), 1);
    assert_int_equal(EVP_DecryptUpdate(cipher, NULL, &got, (const uint8_t *)context.ptr, 3), 1);
    assert_int_equal(EVP_DecryptUpdate(cipher, (uint8_t *)text, &got, (uint8_t *)sealed.ptr + 32, 5), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, 16, sealed.ptr + 37), 1);
    assert_int_equal(EVP_DecryptFinal_ex(cipher, (uint8_t *)text + got, &rest), 1);
    assert_memory_equal(text, "hello", 5);
    EVP_CIPHER_CTX_free(cipher);
    EVP_PKEY_CTX_free(derive);
    EVP_PKEY_free(sender);
    EVP_PKEY_free(key);
    buf_free(&sealed);
}

int main(void)
{
    const struct CMUnitTest files[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(any_changed_bit_breaks_a_signature),
        cmocka_unit_test(a_key_is_made_once),
        cmocka_unit_test(refused_files),
        cmocka_unit_test(another_kind_of_key_is_refused),
    };
    const struct CMUnitTest seals[] = {
        cmocka_unit_test(opened_by_its_receiver_only),
        cmocka_unit_test(two_seals_differ),
        cmocka_unit_test(limits_of_sealing),
        cmocka_unit_test(the_format_is_as_described),
    };
    int failed = cmocka_run_group_tests(files, setup, teardown);
    return failed + cmocka_run_group_tests(seals, keys_setup, keys_teardown);
}
