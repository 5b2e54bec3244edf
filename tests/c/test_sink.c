/* Rows put in any order by many threads are where they belong; what fails closes the sink. */
#include "load/sink.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    N_CELLS = 500,
    N_COLS = 50,
    N_DENSE = 5,
    DATA_AT = 1000,
    INDICES_AT = 60000,
    DENSE_AT = 200
};

static int64_t
length_of(int64_t row)
{
    return row % 7 == 3 ? 0 : row % 11 + 1;
}

static double
value_of(int64_t row, int64_t i)
{
    return (double)((row * 31 + i * 7) % 251 + 1);
}

/* CSR as uint16 values and indices, and a dense float32 track, of N_CELLS cells. */
typedef struct made_sink {
    char path[32];
    int64_t indptr[N_CELLS + 1], cells[N_CELLS];
    scio_sink_array arrays[2];
    scio_sink_source source;
    scio_sink *sink;
} made_sink;

static scio_status
make_sink(made_sink *made, scio_error *err)
{
    memset(made, 0, sizeof *made);
    strcpy(made->path, "/tmp/scio-sink-XXXXXX");
    const int fd = mkstemp(made->path);
    CHECK(fd >= 0);
    (void)close(fd);
    for (int64_t i = 0; i < N_CELLS; i++) {
        made->indptr[i + 1] = made->indptr[i] + length_of(i);
        made->cells[i] = 3 * i + 10; /* a selection: every third cell from 10 on */
    }
    made->arrays[0] = (scio_sink_array){.n_cols = N_COLS,
                                        .indptr = made->indptr,
                                        .data_offset = DATA_AT,
                                        .indices_offset = INDICES_AT,
                                        .data_dtype = SCIO_U16,
                                        .indices_dtype = SCIO_U16};
    made->arrays[1] = (scio_sink_array){.is_dense = true,
                                        .n_cols = N_DENSE,
                                        .data_offset = 100000 + DENSE_AT,
                                        .data_dtype = SCIO_F32};
    made->source = (scio_sink_source){made->path, made->cells, N_CELLS, 0, made->arrays};
    return scio_sink_new(&made->source, 1, 2, &made->sink, err);
}

static void
end_sink(made_sink *made)
{
    scio_sink_release(made->sink);
    (void)unlink(made->path);
}

/* One cell as the loader has it: values in the dtype at hand, indices uint16. */
static void
put_row(scio_sink *sink, int64_t row, int64_t cell, double bad)
{
    const scio_dtype dtypes[] = {SCIO_U8, SCIO_U16, SCIO_F32, SCIO_F64, SCIO_I64};
    const scio_dtype dtype = dtypes[row % 5];
    double values[16], dense[N_DENSE];
    char stored[16 * 8];
    uint16_t columns[16];
    const size_t n = (size_t)length_of(row);

    for (size_t i = 0; i < n; i++) {
        values[i] = value_of(row, (int64_t)i);
        columns[i] = (uint16_t)(i * 4);
    }
    for (int64_t i = 0; i < N_DENSE; i++)
        dense[i] = (double)(row * 10 + i) / 8;
    if (bad != 0)
        values[0] = bad;
    const scio_dtype used = bad != 0 ? SCIO_F64 : dtype;
    CHECK(scio_cast(SCIO_F64, values, used, stored, n, NULL) == SCIO_OK);
    const scio_row rows[2] = {
        {.indices = columns,
         .index_dtype = SCIO_U16,
         .values = stored,
         .value_dtype = used,
         .n_items = n,
         .cell = cell},
        {.values = dense, .value_dtype = SCIO_F64, .n_items = N_DENSE, .cell = cell}};
    scio_sink_put(sink, 0, cell, rows);
}

static void
check_file(const made_sink *made)
{
    const int fd = open(made->path, O_RDONLY);
    CHECK(fd >= 0);
    for (int64_t row = 0; row < N_CELLS; row++) {
        uint16_t data[16], indices[16];
        float dense[N_DENSE];
        const size_t n = (size_t)length_of(row);
        const off_t first = (off_t)made->indptr[row];
        CHECK(pread(fd, data, n * 2, DATA_AT + first * 2) == (ssize_t)n * 2);
        CHECK(pread(fd, indices, n * 2, INDICES_AT + first * 2) == (ssize_t)n * 2);
        CHECK(pread(fd, dense, sizeof dense, 100000 + DENSE_AT + row * (off_t)sizeof dense) ==
              (ssize_t)sizeof dense);
        for (size_t i = 0; i < n; i++)
            CHECK(data[i] == value_of(row, (int64_t)i) && indices[i] == i * 4);
        for (int64_t i = 0; i < N_DENSE; i++)
            CHECK(dense[i] == (float)(row * 10 + i) / 8);
    }
    (void)close(fd);
}

typedef struct put_context {
    const made_sink *made;
    const int64_t *order;
} put_context;

static scio_status
put_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const put_context *const put = context;
    const int64_t row = put->order[i_item % N_CELLS]; /* every cell comes twice */
    (void)slot;
    (void)err;
    put_row(put->made->sink, row, put->made->cells[row], 0);
    return SCIO_OK;
}

TEST(rows_in_any_order_from_many_threads_are_in_their_places)
{
    made_sink made;
    int64_t order[N_CELLS], left[N_CELLS];
    scio_error err = SCIO_ERROR_INIT;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    CHECK(scio_sink_missing(made.sink, left, N_CELLS) == N_CELLS && left[1] == 13);
    for (int64_t i = 0; i < N_CELLS; i++)
        order[i] = (i * 347) % N_CELLS; /* 347 has no factor in common with 500 */
    const put_context put = {&made, order};
    scio_pool *pool = NULL;
    CHECK(scio_pool_new(4, &pool, &err) == SCIO_OK);
    CHECK(scio_parallel_for(pool, 4, 2 * (size_t)N_CELLS, put_item, (void *)(uintptr_t)&put, NULL,
                            &err) == SCIO_OK);
    CHECK(scio_sink_n_put(made.sink) == N_CELLS && scio_sink_n_cells(made.sink) == N_CELLS);
    CHECK(scio_sink_missing(made.sink, left, N_CELLS) == 0);
    CHECK(!scio_sink_is_closed(made.sink) && !scio_sink_failure(made.sink, &err));
    CHECK(scio_sink_sync(made.sink, &err) == SCIO_OK);
    scio_pool_free(pool);
    check_file(&made);
    end_sink(&made);
}

TEST(what_is_missing_is_named_and_strangers_are_left_out)
{
    made_sink made;
    int64_t left[N_CELLS];
    scio_error err = SCIO_ERROR_INIT;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    for (int64_t row = 0; row < N_CELLS; row++)
        if (row != 5 && row != 300)
            put_row(made.sink, row, made.cells[row], 0);
    put_row(made.sink, 5, made.cells[5] + 1, 0); /* no cell of this source */
    put_row(made.sink, 5, 0, 0);
    put_row(made.sink, 5, made.cells[N_CELLS - 1] + 3, 0);
    scio_sink_put(made.sink, 1, made.cells[5], NULL); /* no such source */
    CHECK(scio_sink_n_put(made.sink) == N_CELLS - 2);
    CHECK(scio_sink_missing(made.sink, left, 1) == 1 && left[0] == made.cells[5]);
    CHECK(scio_sink_missing(made.sink, left, N_CELLS) == 2 && left[1] == made.cells[300]);
    put_row(made.sink, 5, made.cells[5], 0);
    put_row(made.sink, 300, made.cells[300], 0);
    check_file(&made);
    scio_sink_close(made.sink);
    CHECK(scio_sink_sync(made.sink, &err) == SCIO_EINVAL);
    CHECK(!scio_sink_failure(made.sink, &err));
    end_sink(&made);
}

TEST(a_value_that_does_not_fit_closes_the_sink)
{
    const double bad[] = {-1, 65536, 0.5, 1e30};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        made_sink made;
        scio_error err = SCIO_ERROR_INIT, why = SCIO_ERROR_INIT;
        CHECK(make_sink(&made, &err) == SCIO_OK);
        put_row(made.sink, 0, made.cells[0], 0);
        put_row(made.sink, 1, made.cells[1], bad[i]);
        CHECK(scio_sink_is_closed(made.sink));
        put_row(made.sink, 2, made.cells[2], 0);
        CHECK(scio_sink_n_put(made.sink) == 1);
        CHECK(scio_sink_failure(made.sink, &why));
        CHECK_STR(why.message, "cell 13");
        CHECK_STR(why.message, "uint16");
        CHECK(scio_sink_sync(made.sink, &err) == why.code);
        end_sink(&made);
    }
}

TEST(a_row_of_another_length_closes_the_sink)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT, why = SCIO_ERROR_INIT;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    put_row(made.sink, 2, made.cells[1], 0);
    CHECK(scio_sink_failure(made.sink, &why) && why.code == SCIO_EBUG);
    CHECK_STR(why.message, "announced");
    end_sink(&made);
}

TEST(a_sparse_row_of_a_dense_matrix_is_filled_up_with_zeros)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT;
    const uint16_t columns[2] = {1, 4};
    const uint8_t values[2] = {7, 9};
    float dense[N_DENSE];
    const scio_row rows[2] = {{.indices = columns,
                               .index_dtype = SCIO_U16,
                               .values = values,
                               .value_dtype = SCIO_U8,
                               .n_items = 1},
                              {.indices = columns,
                               .index_dtype = SCIO_U16,
                               .values = values,
                               .value_dtype = SCIO_U8,
                               .n_items = 2}};

    CHECK(make_sink(&made, &err) == SCIO_OK);
    scio_sink_put(made.sink, 0, made.cells[0], rows);
    CHECK(scio_sink_n_put(made.sink) == 1);
    const int fd = open(made.path, O_RDONLY);
    CHECK(pread(fd, dense, sizeof dense, 100000 + DENSE_AT) == (ssize_t)sizeof dense);
    CHECK(dense[0] == 0 && dense[1] == 7 && dense[2] == 0 && dense[3] == 0 && dense[4] == 9);
    (void)close(fd);
    end_sink(&made);
}

/* The k-th byte is one too many, for many k: the child says what it saw. */
static int
child_with_limit(rlim_t limit)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT, why = SCIO_ERROR_INIT;
    const struct rlimit limits = {limit, limit};

    (void)signal(SIGXFSZ, SIG_IGN);
    if (make_sink(&made, &err) != SCIO_OK || setrlimit(RLIMIT_FSIZE, &limits) != 0)
        return 1;
    for (int64_t row = 0; row < N_CELLS; row++)
        put_row(made.sink, row, made.cells[row], 0);
    const bool has_failed = scio_sink_failure(made.sink, &why);
    const bool is_all = scio_sink_n_put(made.sink) == N_CELLS;
    const int result = has_failed == is_all                                   ? 2
                       : has_failed && why.code != SCIO_EWRITE                ? 3
                       : has_failed && strstr(why.message, made.path) == NULL ? 4
                       : has_failed                                           ? 10
                                                                              : 11;
    end_sink(&made);
    return result;
}

TEST(a_write_that_fails_anywhere_closes_the_sink)
{
    int n_failed = 0, n_passed = 0;

    for (rlim_t limit = 0; limit < 112000; limit += 1777) {
        const pid_t child = fork();
        int state = 0;
        if (child == 0)
            _exit(child_with_limit(limit));
        CHECK(child > 0 && waitpid(child, &state, 0) == child);
        CHECK(WIFEXITED(state) && (WEXITSTATUS(state) == 10 || WEXITSTATUS(state) == 11));
        n_failed += WIFEXITED(state) && WEXITSTATUS(state) == 10;
        n_passed += WIFEXITED(state) && WEXITSTATUS(state) == 11;
    }
    CHECK(n_failed > 20 && n_passed > 0);
}

/* What the disk cannot hold is known before the first cell. */
static int
child_without_space(void)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT;
    const struct rlimit limits = {50000, 50000};

    (void)signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limits) != 0)
        return 1;
    const scio_status status = make_sink(&made, &err);
    end_sink(&made);
    return status == SCIO_EWRITE && err.saved_errno == EFBIG && made.sink == NULL ? 10 : 2;
}

TEST(space_is_set_aside_before_anything_is_put)
{
    int state = 0;
    const pid_t child = fork();
    if (child == 0)
        _exit(child_without_space());
    CHECK(child > 0 && waitpid(child, &state, 0) == child && WIFEXITED(state) &&
          WEXITSTATUS(state) == 10);
}

TEST(a_child_that_was_forked_writes_nothing)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT;
    int state = 0;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    const pid_t child = fork();
    if (child == 0) {
        put_row(made.sink, 0, made.cells[0], 0);
        const bool is_silent = scio_sink_n_put(made.sink) == 0;
        scio_sink_release(made.sink);
        _exit(is_silent ? 0 : 1);
    }
    CHECK(child > 0 && waitpid(child, &state, 0) == child && WIFEXITED(state) &&
          WEXITSTATUS(state) == 0);
    end_sink(&made);
}

TEST(what_does_not_hold_together_is_refused)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT;
    scio_sink *sink = NULL;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    made.cells[4] = made.cells[3];
    CHECK(scio_sink_new(&made.source, 1, 2, &sink, &err) == SCIO_EINVAL && sink == NULL);
    CHECK_STR(err.message, "ascend");
    made.source.cells = NULL;
    made.indptr[7] = made.indptr[6] - 1;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_sink_new(&made.source, 1, 2, &sink, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "indptr[7]");
    made.indptr[7] = made.indptr[6];
    made.arrays[0].data_offset = INT64_MAX;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_sink_new(&made.source, 1, 2, &sink, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "do not fit");
    made.arrays[0].data_offset = 0;
    made.source.path = "/tmp/scio-there-is-no-such-file";
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_sink_new(&made.source, 1, 2, &sink, &err) == SCIO_EWRITE);
    CHECK(err.saved_errno != 0);
    end_sink(&made);
}

TEST(every_allocation_may_fail)
{
    made_sink made;
    scio_error err = SCIO_ERROR_INIT;
    size_t k = 0;

    CHECK(make_sink(&made, &err) == SCIO_OK);
    for (scio_status status = SCIO_ENOMEM; status != SCIO_OK && k < 100; k++) {
        scio_sink *sink = NULL;
        err = (scio_error)SCIO_ERROR_INIT;
        scio_mem_fail_at(k);
        status = scio_sink_new(&made.source, 1, 2, &sink, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        scio_sink_release(sink);
    }
    CHECK(k > 5 && k < 100);
    scio_mem_fail_at(0); /* of the conversion */
    put_row(made.sink, 0, made.cells[0], 0);
    scio_mem_fail_at(SIZE_MAX);
    CHECK(scio_sink_failure(made.sink, &err) && err.code == SCIO_ENOMEM);
    end_sink(&made);
}
