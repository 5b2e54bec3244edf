/* Status codes and the error record that every function which can fail fills in.
 *
 * A function that can fail returns scio_status and takes `scio_error *err` last; `err` lives on the
 * caller's stack and may be NULL.  The first failure wins: a record that already holds one is not
 * overwritten.  Callers add the place on the way up with scio_context. */
#ifndef SCIO_BASE_ERROR_H
#define SCIO_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* X(name, meaning): the one list of codes; py/pyerror.c maps each to a Python exception. */
#define SCIO_STATUS_LIST(X)                                                                        \
    X(OK, "ok")                                                                                    \
    X(ENOMEM, "out of memory")                                                                     \
    X(EINVAL, "an argument has a value that is not allowed")                                       \
    X(ETYPE, "an argument has a type that is not allowed")                                         \
    X(ERANGE, "an index is out of range")                                                          \
    X(ENOENT, "a name does not exist")                                                             \
    X(EIO, "the operating system reported an error")                                               \
    X(EWRITE, "writing failed")                                                                    \
    X(EFORMAT, "the file is not what it claims to be")                                             \
    X(ECORRUPT, "a rule of the format is broken")                                                  \
    X(EUNSUPPORTED, "valid, but not read by scio")                                                 \
    X(EUNSAFE, "refused for safety: other files, or a limit")                                      \
    X(ECANCEL, "cancelled")                                                                        \
    X(EBUG, "a bug in scio")

typedef enum scio_status {
#define SCIO_STATUS_ENUM(name, meaning) SCIO_##name,
    SCIO_STATUS_LIST(SCIO_STATUS_ENUM)
#undef SCIO_STATUS_ENUM
} scio_status;

#define SCIO_MESSAGE_NBYTES 512

typedef struct scio_error {
    scio_status code;
    int saved_errno; /* of the failing system call, 0 when there was none */
    char message[SCIO_MESSAGE_NBYTES];
} scio_error;

#define SCIO_ERROR_INIT                                                                            \
    {                                                                                              \
        SCIO_OK, 0,                                                                                \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

#if defined(__GNUC__)
#define SCIO_PRINTF(i_format, i_first) __attribute__((format(printf, i_format, i_first)))
#define SCIO_MUST_CHECK __attribute__((warn_unused_result))
#define SCIO_LIKELY(x) __builtin_expect(!!(x), 1)
#define SCIO_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define SCIO_PRINTF(i_format, i_first)
#define SCIO_MUST_CHECK
#define SCIO_LIKELY(x) (x)
#define SCIO_UNLIKELY(x) (x)
#endif

/* Records the failure in `err` unless it already holds one; returns `code` in every case. */
scio_status scio_fail(scio_error *err, scio_status code, const char *format, ...) SCIO_PRINTF(3, 4);

/* As scio_fail, keeping `saved_errno` and appending its text to the message. */
scio_status scio_fail_errno(scio_error *err, scio_status code, int saved_errno, const char *format,
                            ...) SCIO_PRINTF(4, 5);

/* Puts "place: " in front of the message of a failed `err`; cut at the end if it grows too long. */
void scio_context(scio_error *err, const char *format, ...) SCIO_PRINTF(2, 3);

/* Copies the failure in `from` into `to` unless `to` already holds one. */
void scio_error_move(scio_error *to, const scio_error *from);

/* "ECORRUPT" for SCIO_ECORRUPT; never NULL. */
const char *scio_status_name(scio_status code);

/* Passes a failure on; only where nothing is owned that would leak. */
#define SCIO_TRY(call)                                                                             \
    do {                                                                                           \
        const scio_status scio_try_status = (call);                                                \
        if (scio_try_status != SCIO_OK)                                                            \
            return scio_try_status;                                                                \
    } while (0)

/* A cheap check of our own invariants, on in every build. */
#define SCIO_BUG_IF(condition, err)                                                                \
    do {                                                                                           \
        if (SCIO_UNLIKELY(condition))                                                              \
            return scio_fail((err), SCIO_EBUG, "%s:%d: %s", __FILE__, __LINE__, #condition);       \
    } while (0)

#endif
