/* How EC2 is asked, and what its errors mean. */
#include "adapters/aws.h"

#include <stdio.h>
#include <string.h>

#define VERSION "2016-11-15"

const struct adapter_error_row aws_errors[] = {
    {0, "InsufficientInstanceCapacity", NULL, SUPPLY_NO_CAPACITY}, /* comes with 500 */
    {0, "InsufficientHostCapacity", NULL, SUPPLY_NO_CAPACITY},
    {0, "InsufficientCapacity", NULL, SUPPLY_NO_CAPACITY},
    {0, "ReservationCapacityExceeded", NULL, SUPPLY_NO_CAPACITY},
    {0, "InvalidCapacityReservationId.NotFound", NULL, SUPPLY_NO_CAPACITY},
    {0, "InvalidCapacityReservationId.Malformed", NULL, SUPPLY_BAD_REQUEST},
    {0, "InsufficientReservedInstanceCapacity", NULL, SUPPLY_NO_CAPACITY},
    {0, "InsufficientFreeAddressesInSubnet", NULL, SUPPLY_NO_CAPACITY},
    {0, "Unsupported", NULL, SUPPLY_NO_CAPACITY}, /* the type is not in that zone */
    {0, "UnsupportedOperation", NULL, SUPPLY_UNSUPPORTED},
    {0, "InvalidParameterCombination", NULL, SUPPLY_UNSUPPORTED},
    {0, "SpotMaxPriceTooLow", NULL, SUPPLY_PRICE_MOVED},
    {0, "InstanceLimitExceeded", NULL, SUPPLY_QUOTA},
    {0, "VcpuLimitExceeded", NULL, SUPPLY_QUOTA},
    {0, "MaxSpotInstanceCountExceeded", NULL, SUPPLY_QUOTA},
    {0, "VolumeLimitExceeded", NULL, SUPPLY_QUOTA},
    {0, "PendingVerification", NULL, SUPPLY_QUOTA}, /* of a new account: none yet */
    {0, "AuthFailure", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "UnauthorizedOperation", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "SignatureDoesNotMatch", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "InvalidClientTokenId", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "RequestExpired", NULL, SUPPLY_BAD_CREDENTIAL}, /* or our clock is wrong */
    {0, "OptInRequired", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "Blocked", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "RequestLimitExceeded", NULL, SUPPLY_RATE_LIMITED}, /* comes with 503 */
    {0, "Throttling", NULL, SUPPLY_RATE_LIMITED},
    {0, "ServiceUnavailable", NULL, SUPPLY_TRANSIENT},
    {0, "InternalError", NULL, SUPPLY_TRANSIENT},
    {0, "Unavailable", NULL, SUPPLY_TRANSIENT},
    {0, "InvalidInstanceID.NotFound", NULL, SUPPLY_NOT_FOUND},
    {0, "InvalidInstanceID.Malformed", NULL, SUPPLY_NOT_FOUND},
    {0, "IncorrectInstanceState", NULL, SUPPLY_NOT_YET},
    {0, "IdempotentInstanceTerminated", NULL, SUPPLY_FAILED},
    {0, "IdempotentParameterMismatch", NULL, SUPPLY_UNKNOWN},
    {0, NULL, NULL, SUPPLY_OK},
};

void aws_authorise(struct network *network, struct adapter_call *call)
{
    const char *token = network_credential(network, "session_token");
    if (token)
        adapter_header(call, "x-amz-security-token", str_of(token));
}

/* <Code>..</Code> and <Message>..</Message> of an error, without a tree. */
static struct str between(struct str text, const char *open, const char *close)
{
    const char *from = text.ptr ? memmem(text.ptr, text.len, open, strlen(open)) : NULL;
    if (!from)
        return (struct str){NULL, 0};
    from += strlen(open);
    const char *to = memmem(from, (size_t)(text.ptr + text.len - from), close, strlen(close));
    return to ? (struct str){from, (size_t)(to - from)} : (struct str){NULL, 0};
}

void aws_explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message)
{
    *ret_code = between(answer->body, "<Code>", "</Code>");
    *ret_message = between(answer->body, "<Message>", "</Message>");
}

bool aws_add(struct adapter_call *call, struct buf *body, const char *key, struct str value)
{
    struct str escaped = adapter_url_escaped(call, value);
    if (!escaped.ptr)
        return false;
    if (buf_printf(body, "&%s=" STR_FMT, key, STR_ARG(escaped)))
        return true;
    adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the request is too long for EC2"));
    return false;
}

void aws_ask(struct adapter_call *call, struct buf *body, enum aws_ask kind, adapter_answer_fn *on_answer)
{
    struct network *network = call_network(call);
    const char *region = network_option(network, "region"), *url = network_base_url(network);
    struct str scope = adapter_text(call, "aws:amz:%s:ec2", region), path = STR("/"), text;
    if (!strcmp(url, AWS_GENERAL_URL))
        path = adapter_text(call, "https://ec2.%s.amazonaws.com/", region);
    text = adapter_text(call, STR_FMT, STR_ARG(buf_str(body)));
    buf_free(body);
    if (!scope.ptr || !path.ptr || !text.ptr)
        return;
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = path,
                                                 .body = text,
                                                 .content_type = "application/x-www-form-urlencoded; charset=utf-8",
                                                 .accept = "text/xml",
                                                 .aws_sigv4 = scope.ptr,
                                                 .creates = kind == AWS_CREATES,
                                                 .takes_errors = kind != AWS_READS,
                                                 .on_answer = on_answer});
}

void aws_begin(struct buf *body, const char *action)
{
    buf_init(body, AWS_BODY_MAX);
    if (!buf_printf(body, "Action=%s&Version=" VERSION, action))
        buf_clear(body); /* refused by EC2 as no action */
}

json_t *aws_tree(struct adapter_call *call, const struct adapter_answer *answer, const char *member)
{
    json_t *tree = xml_to_json(answer->body);
    if (tree && json_at(tree, member))
        return tree;
    json_decref(tree);
    adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer is not EC2's"));
    return NULL;
}

bool aws_is_error(const struct adapter_answer *answer, const char *code)
{
    struct str is = {NULL, 0}, message;
    if (answer->status >= 300)
        aws_explain(answer, &is, &message);
    return str_eq(is, str_of(code));
}

const char *aws_subnet(struct adapter_call *call, struct str zone)
{
    struct str key = adapter_text(call, "subnet." STR_FMT, STR_ARG(zone));
    return key.ptr ? network_option(call_network(call), key.ptr) : NULL;
}
