/* What a static libcurl asks for beside HTTP, so that sluice-worker runs where there is a C library and nothing else:
 * Debian's libcurl.a wants libraries for LDAP, RTMP, SSH, Kerberos, cookies' domains, codings and names beyond ASCII,
 * and most of those have no static form. http_client.c allows http and https only, without authentication, cookies or
 * redirects, so what is reached are the last ones below: at the start, for a host's name, and for an answer with a
 * transfer coding, which fails the exchange. Whatever else were called ends the program rather than go on as if
 * something had been done.
 *
 * Linked into sluice-worker only: the folder is deeper than those that make the archives. */
#include <stdio.h>
#include <stdlib.h>

static _Noreturn void unavailable(const char *name)
{
    fprintf(stderr, "sluice-worker: %s is not built in\n", name);
    abort();
}

/* Whatever the arguments: none is looked at, and no call returns. */
#define STAND_IN(name)      \
    void name(void);        \
    void name(void)         \
    {                       \
        unavailable(#name); \
    }

/* clang-format off */
STAND_IN(gss_delete_sec_context) STAND_IN(gss_display_name) STAND_IN(gss_display_status) STAND_IN(gss_import_name)
STAND_IN(gss_init_sec_context) STAND_IN(gss_inquire_context) STAND_IN(gss_release_buffer) STAND_IN(gss_release_name)
STAND_IN(gss_unwrap) STAND_IN(gss_wrap)
STAND_IN(RTMP_Alloc) STAND_IN(RTMP_Close) STAND_IN(RTMP_Connect1) STAND_IN(RTMP_ConnectStream) STAND_IN(RTMP_Free)
STAND_IN(RTMP_Init) STAND_IN(RTMP_Read) STAND_IN(RTMP_SetBufferMS) STAND_IN(RTMP_SetupURL) STAND_IN(RTMP_Write)
STAND_IN(ZSTD_decompressStream) STAND_IN(ZSTD_freeDStream) STAND_IN(ZSTD_isError)
STAND_IN(ber_bvfree) STAND_IN(ber_free) STAND_IN(ber_memfree) STAND_IN(ber_sockbuf_add_io)
STAND_IN(ldap_abandon_ext) STAND_IN(ldap_err2string) STAND_IN(ldap_free_urldesc) STAND_IN(ldap_get_attribute_ber)
STAND_IN(ldap_get_dn_ber) STAND_IN(ldap_get_option) STAND_IN(ldap_init_fd) STAND_IN(ldap_memfree)
STAND_IN(ldap_msgfree) STAND_IN(ldap_msgtype) STAND_IN(ldap_parse_result) STAND_IN(ldap_parse_sasl_bind_result)
STAND_IN(ldap_pvt_url_scheme2proto) STAND_IN(ldap_result) STAND_IN(ldap_sasl_bind) STAND_IN(ldap_search_ext)
STAND_IN(ldap_set_option) STAND_IN(ldap_start_tls) STAND_IN(ldap_unbind_ext) STAND_IN(ldap_url_parse)
STAND_IN(libssh2_agent_connect) STAND_IN(libssh2_agent_disconnect) STAND_IN(libssh2_agent_free)
STAND_IN(libssh2_agent_get_identity) STAND_IN(libssh2_agent_init) STAND_IN(libssh2_agent_list_identities)
STAND_IN(libssh2_agent_userauth) STAND_IN(libssh2_channel_free) STAND_IN(libssh2_channel_read_ex)
STAND_IN(libssh2_channel_send_eof) STAND_IN(libssh2_channel_wait_closed) STAND_IN(libssh2_channel_wait_eof)
STAND_IN(libssh2_channel_write_ex) STAND_IN(libssh2_hostkey_hash) STAND_IN(libssh2_knownhost_add)
STAND_IN(libssh2_knownhost_checkp) STAND_IN(libssh2_knownhost_del) STAND_IN(libssh2_knownhost_free)
STAND_IN(libssh2_knownhost_get) STAND_IN(libssh2_knownhost_init) STAND_IN(libssh2_knownhost_readfile)
STAND_IN(libssh2_knownhost_writefile) STAND_IN(libssh2_scp_recv2) STAND_IN(libssh2_scp_send64)
STAND_IN(libssh2_session_abstract) STAND_IN(libssh2_session_block_directions) STAND_IN(libssh2_session_callback_set)
STAND_IN(libssh2_session_disconnect_ex) STAND_IN(libssh2_session_flag) STAND_IN(libssh2_session_free)
STAND_IN(libssh2_session_handshake) STAND_IN(libssh2_session_hostkey) STAND_IN(libssh2_session_init_ex)
STAND_IN(libssh2_session_last_errno) STAND_IN(libssh2_session_last_error) STAND_IN(libssh2_session_method_pref)
STAND_IN(libssh2_session_set_blocking) STAND_IN(libssh2_sftp_close_handle) STAND_IN(libssh2_sftp_init)
STAND_IN(libssh2_sftp_last_error) STAND_IN(libssh2_sftp_mkdir_ex) STAND_IN(libssh2_sftp_open_ex)
STAND_IN(libssh2_sftp_read) STAND_IN(libssh2_sftp_readdir_ex) STAND_IN(libssh2_sftp_rename_ex)
STAND_IN(libssh2_sftp_rmdir_ex) STAND_IN(libssh2_sftp_seek64) STAND_IN(libssh2_sftp_shutdown)
STAND_IN(libssh2_sftp_stat_ex) STAND_IN(libssh2_sftp_statvfs) STAND_IN(libssh2_sftp_symlink_ex)
STAND_IN(libssh2_sftp_unlink_ex) STAND_IN(libssh2_sftp_write) STAND_IN(libssh2_userauth_authenticated)
STAND_IN(libssh2_userauth_keyboard_interactive_ex) STAND_IN(libssh2_userauth_list)
STAND_IN(libssh2_userauth_password_ex) STAND_IN(libssh2_userauth_publickey_fromfile_ex) STAND_IN(libssh2_version)
STAND_IN(psl_builtin) STAND_IN(psl_free) STAND_IN(psl_is_cookie_domain_acceptable) STAND_IN(psl_latest)
    STAND_IN(BrotliDecoderDecompressStream) STAND_IN(BrotliDecoderDestroyInstance)
STAND_IN(BrotliDecoderGetErrorCode) STAND_IN(BrotliDecoderVersion)
STAND_IN(inflate) STAND_IN(inflateEnd)
    /* clang-format on */

    /* -- what is reached ---------------------------------------------------------------------------------------------
     */

    const void *GSS_C_NT_HOSTBASED_SERVICE; /* an object's address is taken; its value is read by what is above only */

int libssh2_init(int flags);
int libssh2_init(int flags)
{
    (void)flags;
    return 0;
}

void libssh2_exit(void);
void libssh2_exit(void)
{
}

/* NULL: there is none, and libcurl asks no further. */
const char *idn2_check_version(const char *least);
const char *idn2_check_version(const char *least)
{
    (void)least;
    return NULL;
}

int idn2_lookup_ul(const char *name, char **ret, int flags);
int idn2_lookup_ul(const char *name, char **ret, int flags)
{
    (void)name;
    (void)ret;
    (void)flags;
    return -100; /* IDN2_MALLOC */
}

void idn2_free(void *memory);
void idn2_free(void *memory)
{
    free(memory);
}

/* Decoders that cannot be had: an answer in "Transfer-Encoding: gzip" and its like is an error. */

void *BrotliDecoderCreateInstance(void *allocate, void *release, void *opaque);
void *BrotliDecoderCreateInstance(void *allocate, void *release, void *opaque)
{
    (void)allocate;
    (void)release;
    (void)opaque;
    return NULL;
}

void *ZSTD_createDStream(void);
void *ZSTD_createDStream(void)
{
    return NULL;
}

const char *zlibVersion(void);
const char *zlibVersion(void)
{
    return "1.2.13";
}

#define VERSION_ERROR (-6) /* Z_VERSION_ERROR */

int inflateInit_(void *stream, const char *version, int size);
int inflateInit_(void *stream, const char *version, int size)
{
    (void)stream;
    (void)version;
    (void)size;
    return VERSION_ERROR;
}

int inflateInit2_(void *stream, int window_bits, const char *version, int size);
int inflateInit2_(void *stream, int window_bits, const char *version, int size)
{
    (void)window_bits;
    return inflateInit_(stream, version, size);
}
