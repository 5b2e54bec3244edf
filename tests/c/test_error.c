#include "base/error.h"

#include "test.h"

#include <errno.h>

TEST(fail_records_code_and_message_and_returns_the_code)
{
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_fail(&err, SCIO_ECORRUPT, "row %d of %s", 7, "X") == SCIO_ECORRUPT);
    CHECK(err.code == SCIO_ECORRUPT);
    CHECK(err.saved_errno == 0);
    CHECK(strcmp(err.message, "row 7 of X") == 0);
}

TEST(the_first_failure_wins)
{
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_fail(&err, SCIO_ENOMEM, "first") == SCIO_ENOMEM);
    CHECK(scio_fail(&err, SCIO_EIO, "second") == SCIO_EIO);
    CHECK(scio_fail_errno(&err, SCIO_EIO, ENOENT, "third") == SCIO_EIO);
    CHECK(err.code == SCIO_ENOMEM);
    CHECK(err.saved_errno == 0);
    CHECK(strcmp(err.message, "first") == 0);
}

TEST(no_record_is_needed)
{
    CHECK(scio_fail(NULL, SCIO_EINVAL, "%d", 1) == SCIO_EINVAL);
    CHECK(scio_fail_errno(NULL, SCIO_EIO, EIO, "%d", 1) == SCIO_EIO);
    scio_context(NULL, "place");
    scio_error_move(NULL, NULL);
}

TEST(fail_errno_keeps_the_number_and_appends_its_text)
{
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_fail_errno(&err, SCIO_EIO, ENOENT, "cannot open %s", "a.h5") == SCIO_EIO);
    CHECK(err.saved_errno == ENOENT);
    CHECK(strcmp(err.message, "cannot open a.h5: No such file or directory") == 0);
}

TEST(an_errno_that_nobody_knows_has_a_text_too)
{
    scio_error err = SCIO_ERROR_INIT;

    (void)scio_fail_errno(&err, SCIO_EIO, 98765, "open");
    CHECK_STR(err.message, "98765");
}

TEST(context_goes_in_front)
{
    scio_error err = SCIO_ERROR_INIT;

    (void)scio_fail(&err, SCIO_ECORRUPT, "bad size");
    scio_context(&err, "chunk %d", 3);
    scio_context(&err, "%s", "X/data");
    CHECK(strcmp(err.message, "X/data: chunk 3: bad size") == 0);
    CHECK(err.code == SCIO_ECORRUPT);
}

TEST(context_of_a_record_without_failure_does_nothing)
{
    scio_error err = SCIO_ERROR_INIT;

    scio_context(&err, "place");
    CHECK(err.code == SCIO_OK);
    CHECK(err.message[0] == '\0');
}

TEST(messages_that_grow_too_long_are_cut_at_the_end)
{
    char text[2 * SCIO_MESSAGE_NBYTES];
    scio_error err = SCIO_ERROR_INIT;

    memset(text, 'm', sizeof text);
    text[sizeof text - 1] = '\0';
    (void)scio_fail_errno(&err, SCIO_EIO, EIO, "%s", text);
    CHECK(strlen(err.message) == SCIO_MESSAGE_NBYTES - 1);
    scio_context(&err, "place");
    CHECK(strlen(err.message) == SCIO_MESSAGE_NBYTES - 1);
    CHECK(strncmp(err.message, "place: mmm", 10) == 0);
    /* a place as long as the whole message leaves nothing of the rest, and nothing overflows */
    scio_context(&err, "%s", text);
    CHECK(strlen(err.message) == SCIO_MESSAGE_NBYTES - 1);
    CHECK(strncmp(err.message, "mmm", 3) == 0);
}

TEST(context_at_every_length_around_the_limit_keeps_the_order)
{
    for (int n = 0; n < SCIO_MESSAGE_NBYTES + 8; n++) {
        scio_error err = SCIO_ERROR_INIT;

        (void)scio_fail(&err, SCIO_EBUG, "end");
        scio_context(&err, "%*s", n, "");
        CHECK(strlen(err.message) < SCIO_MESSAGE_NBYTES);
        if (n + 2 + 3 < SCIO_MESSAGE_NBYTES)
            CHECK(strcmp(err.message + n, ": end") == 0);
    }
}

TEST(move_copies_a_failure_once)
{
    scio_error from = SCIO_ERROR_INIT, to = SCIO_ERROR_INIT;

    scio_error_move(&to, &from);
    CHECK(to.code == SCIO_OK);
    (void)scio_fail_errno(&from, SCIO_EIO, EACCES, "one");
    scio_error_move(&to, &from);
    CHECK(to.code == SCIO_EIO && to.saved_errno == EACCES);
    CHECK(strcmp(to.message, from.message) == 0);
    from.code = SCIO_EBUG;
    scio_error_move(&to, &from);
    CHECK(to.code == SCIO_EIO);
}

TEST(every_status_has_its_name)
{
    CHECK(strcmp(scio_status_name(SCIO_OK), "OK") == 0);
    CHECK(strcmp(scio_status_name(SCIO_ECORRUPT), "ECORRUPT") == 0);
    CHECK(strcmp(scio_status_name(SCIO_EBUG), "EBUG") == 0);
    CHECK(scio_status_name((scio_status)9999) != NULL);
}

static scio_status
with_try(scio_status inner)
{
    SCIO_TRY(inner);
    return SCIO_ECANCEL; /* reached only when inner is OK */
}

static scio_status
with_bug(int value, scio_error *err)
{
    SCIO_BUG_IF(value > 3, err);
    return SCIO_OK;
}

TEST(the_macros_return_early)
{
    scio_error err = SCIO_ERROR_INIT;

    CHECK(with_try(SCIO_OK) == SCIO_ECANCEL);
    CHECK(with_try(SCIO_ENOENT) == SCIO_ENOENT);
    CHECK(with_bug(3, &err) == SCIO_OK);
    CHECK(with_bug(4, &err) == SCIO_EBUG);
    CHECK_STR(err.message, "test_error.c");
    CHECK_STR(err.message, "value > 3");
}
