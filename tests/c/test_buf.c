#include "base/buf.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/stats.h"
#include "test.h"

#include <stdint.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

typedef struct release_call {
    int n_calls;
    void *data;
    size_t nbytes;
} release_call;

static void
note_release(void *context, void *data, size_t nbytes)
{
    release_call *const call = context;

    call->n_calls++;
    call->data = data;
    call->nbytes = nbytes;
}

TEST(buffers_of_all_sizes_can_be_written_to_the_last_byte)
{
    const size_t sizes[] = {0,           1,       63,          4095,        100000,
                            MIB,         4 * MIB, 4 * MIB - 1, 4 * MIB + 1, 5 * MIB + 12345,
                            33 * MIB + 7};
    const int64_t n_before = scio_stats_get(SCIO_STAT_live_bufs);
    const int64_t nbytes_before = scio_stats_get(SCIO_STAT_live_buf_nbytes);

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        scio_buf *buf = NULL;
        unsigned char *data;

        CHECK(scio_buf_new(sizes[i], &buf, NULL) == SCIO_OK);
        data = scio_buf_data(buf);
        CHECK(data != NULL);
        CHECK((uintptr_t)data % SCIO_ALIGNMENT == 0);
        CHECK(sizes[i] < 4 * MIB || (uintptr_t)data % (2 * MIB) == 0);
        CHECK(scio_buf_nbytes(buf) == sizes[i]);
        CHECK(scio_buf_n_refs(buf) == 1);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_before + 1);
        CHECK(scio_stats_get(SCIO_STAT_live_buf_nbytes) == nbytes_before + (int64_t)sizes[i]);
        for (size_t at = 0; at < sizes[i]; at += 4096)
            data[at] = 1;
        if (sizes[i] > 0)
            data[sizes[i] - 1] = 2;
        scio_buf_release(buf);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_before);
        CHECK(scio_stats_get(SCIO_STAT_live_buf_nbytes) == nbytes_before);
    }
}

TEST(two_live_buffers_never_share_memory)
{
    enum { N_BUFS = 12 };
    scio_buf *bufs[N_BUFS] = {NULL};

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < N_BUFS; i++) {
            CHECK(scio_buf_new(300000 + 5 * MIB * (i % 2), &bufs[i], NULL) == SCIO_OK);
            memset(scio_buf_data(bufs[i]), (int)i, scio_buf_nbytes(bufs[i]));
        }
        for (size_t i = 0; i < N_BUFS; i++) {
            const unsigned char *data = scio_buf_data(bufs[i]);

            CHECK(data[0] == i && data[scio_buf_nbytes(bufs[i]) - 1] == i);
            CHECK(memcmp(data, data + 1, scio_buf_nbytes(bufs[i]) - 1) == 0);
            scio_buf_release(bufs[i]);
        }
    }
}

TEST(wrapped_memory_is_released_once_with_the_last_reference)
{
    const int64_t n_before = scio_stats_get(SCIO_STAT_live_bufs);
    release_call call = {0, NULL, 0};
    char memory[10];
    scio_buf *buf = NULL;

    CHECK(scio_buf_wrap(memory, sizeof memory, note_release, &call, &buf, NULL) == SCIO_OK);
    CHECK(scio_buf_data(buf) == memory);
    CHECK(scio_buf_retain(buf) == buf);
    CHECK(scio_buf_n_refs(buf) == 2);
    scio_buf_release(buf);
    CHECK(call.n_calls == 0);
    scio_buf_release(buf);
    CHECK(call.n_calls == 1 && call.data == memory && call.nbytes == sizeof memory);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_before);
}

TEST(wrapped_memory_without_a_callback_is_left_alone)
{
    char memory[4] = "abc";
    scio_buf *buf = NULL;

    CHECK(scio_buf_wrap(memory, sizeof memory, NULL, NULL, &buf, NULL) == SCIO_OK);
    scio_buf_release(buf);
    CHECK(strcmp(memory, "abc") == 0);
}

TEST(null_is_a_buffer_of_nothing)
{
    CHECK(scio_buf_retain(NULL) == NULL);
    scio_buf_release(NULL);
    CHECK(scio_buf_data(NULL) == NULL);
    CHECK(scio_buf_nbytes(NULL) == 0);
    CHECK(scio_buf_n_refs(NULL) == 0);
}

/* What the kernel says of the mapping that `data` begins: "hg" among its flags is the advice. */
static bool
is_advised_huge(const void *data)
{
    FILE *const maps = fopen("/proc/self/smaps", "r");
    char line[400];
    bool is_inside = false, is_huge = false;

    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long start = 0, end = 0;

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            is_inside = (uintptr_t)data >= start && (uintptr_t)data < end;
        if (is_inside && strncmp(line, "VmFlags:", 8) == 0)
            is_huge = strstr(line, " hg") != NULL;
    }
    if (maps != NULL)
        fclose(maps);
    return is_huge;
}

TEST(large_buffers_are_advised_for_huge_pages_and_small_ones_are_not)
{
    static const size_t sizes[] = {MIB, 4 * MIB, 40 * MIB};

    if (access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) != 0)
        return; /* a kernel without them */
    for (size_t i = 0; i < 3; i++) {
        scio_buf *buf = NULL;

        CHECK(scio_buf_new_batch(sizes[i], &buf, NULL) == SCIO_OK);
        CHECK(is_advised_huge(scio_buf_data(buf)) == (sizes[i] >= 4 * MIB));
        scio_buf_release(buf);
    }
}

TEST(sizes_beyond_the_address_space_are_refused)
{
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX - 3 * MIB, SIZE_MAX / 2 + 1,
                            SIZE_MAX / 4};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_buf *buf = NULL;

        CHECK(scio_buf_new(sizes[i], &buf, &err) == SCIO_ENOMEM);
        CHECK(buf == NULL);
        CHECK_STR(err.message, "no memory for a buffer of");
        err = (scio_error)SCIO_ERROR_INIT;
        CHECK(scio_buf_new_batch(sizes[i], &buf, &err) == SCIO_ENOMEM);
        CHECK(buf == NULL);
    }
}

TEST(every_failed_allocation_leaves_nothing_behind)
{
    const size_t sizes[] = {100, 200000, 6 * MIB, 40 * MIB};
    const int64_t n_before = scio_stats_get(SCIO_STAT_live_bufs);
    release_call call = {0, NULL, 0};
    char memory[8];

    for (size_t i = 0; i <= sizeof sizes / sizeof sizes[0]; i++) {
        scio_status status;
        size_t k = 0;

        do {
            scio_buf *buf = NULL;

            scio_mem_fail_at(k++);
            status = i == 0 ? scio_buf_wrap(memory, 8, note_release, &call, &buf, NULL)
                            : scio_buf_new(sizes[i - 1], &buf, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && buf == NULL));
            CHECK(i > 0 || status == SCIO_OK || call.n_calls == 0); /* wrap took nothing over */
            scio_buf_release(buf);
        } while (status != SCIO_OK && k < 100);
        CHECK(status == SCIO_OK && k > 1);
    }
    CHECK(call.n_calls == 1);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_before);
}

static scio_status
retain_and_release(void *context, size_t i_item, size_t slot, scio_error *err)
{
    (void)i_item;
    (void)slot;
    (void)err;
    for (int i = 0; i < 100; i++)
        scio_buf_release(scio_buf_retain(context));
    scio_buf_release(context);
    return SCIO_OK;
}

TEST(references_are_counted_across_threads)
{
    enum { N_ITEMS = 200 };
    release_call call = {0, NULL, 0};
    scio_pool *pool = NULL;
    scio_buf *buf = NULL;
    char memory[4];

    CHECK(scio_pool_new(4, &pool, NULL) == SCIO_OK);
    CHECK(scio_buf_wrap(memory, 4, note_release, &call, &buf, NULL) == SCIO_OK);
    for (int i = 0; i < N_ITEMS; i++)
        (void)scio_buf_retain(buf);
    CHECK(scio_parallel_for(pool, 4, N_ITEMS, retain_and_release, buf, NULL, NULL) == SCIO_OK);
    CHECK(scio_buf_n_refs(buf) == 1);
    CHECK(call.n_calls == 0);
    scio_buf_release(buf);
    CHECK(call.n_calls == 1);
    scio_pool_free(pool);
}
