/* The error record: filled once by the first failure, extended in front by its callers. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void
record(scio_error *err, scio_status code, int saved_errno, const char *format, va_list args)
{
    err->code = code;
    err->saved_errno = saved_errno;
    if (vsnprintf(err->message, sizeof err->message, format, args) < 0)
        err->message[0] = '\0';
}

/* glibc's strerror_r returns the text, which may not be in the buffer; that of POSIX fills it. */
static void
errno_text(int saved_errno, char *text, size_t text_nbytes)
{
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
    const char *found = strerror_r(saved_errno, text, text_nbytes);

    if (found != text)
        (void)snprintf(text, text_nbytes, "%s", found);
#else
    if (strerror_r(saved_errno, text, text_nbytes) != 0)
        (void)snprintf(text, text_nbytes, "errno %d", saved_errno);
#endif
}

scio_status
scio_fail(scio_error *err, scio_status code, const char *format, ...)
{
    va_list args;

    if (err == NULL || err->code != SCIO_OK)
        return code;
    va_start(args, format);
    record(err, code, 0, format, args);
    va_end(args);
    return code;
}

scio_status
scio_fail_errno(scio_error *err, scio_status code, int saved_errno, const char *format, ...)
{
    char reason[128];
    size_t nbytes;
    va_list args;

    if (err == NULL || err->code != SCIO_OK)
        return code;
    va_start(args, format);
    record(err, code, saved_errno, format, args);
    va_end(args);
    errno_text(saved_errno, reason, sizeof reason);
    nbytes = strlen(err->message);
    (void)snprintf(err->message + nbytes, sizeof err->message - nbytes, ": %s", reason);
    return code;
}

void
scio_context(scio_error *err, const char *format, ...)
{
    char place[SCIO_MESSAGE_NBYTES];
    size_t place_nbytes, kept_nbytes;
    va_list args;
    int n_printed;

    if (err == NULL || err->code == SCIO_OK)
        return;
    va_start(args, format);
    n_printed = vsnprintf(place, sizeof place - 2, format, args);
    va_end(args);
    if (n_printed < 0)
        return;
    place_nbytes = strlen(place);
    memcpy(place + place_nbytes, ": ", 3);
    place_nbytes += 2;
    kept_nbytes = strnlen(err->message, sizeof err->message - 1);
    if (kept_nbytes > sizeof err->message - 1 - place_nbytes)
        kept_nbytes = sizeof err->message - 1 - place_nbytes;
    memmove(err->message + place_nbytes, err->message, kept_nbytes);
    memcpy(err->message, place, place_nbytes);
    err->message[place_nbytes + kept_nbytes] = '\0';
}

void
scio_error_move(scio_error *to, const scio_error *from)
{
    if (to == NULL || from == NULL || to->code != SCIO_OK || from->code == SCIO_OK)
        return;
    *to = *from;
}

const char *
scio_status_name(scio_status code)
{
    switch (code) {
#define STATUS_CASE(name, meaning)                                                                 \
    case SCIO_##name:                                                                              \
        return #name;
        SCIO_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown status";
}
