/* Several datasets read together: the same values as one by one, each stretch looked at once. */
#include "base/pool.h"
#include "dataset_testing.h"

#define N_OF(array) (sizeof(array) / sizeof *(array))

static const char *const FILES[] = {
    "line",
    "btree1",
    "extensible_paged",
    "vlen",
    "contiguous",
    "contiguous_hole",
    "compact",
    "line_big",
    "vlen_fill",
    "scalar",
    "bool",
    "empty",
    "lzf",
    "extensible_paged",
    "masks",
    "cube",
    "line_plain",
    "null",
};

#define N_FILES N_OF(FILES)

typedef struct many {
    scio_h5_dataset *datasets[N_FILES];
    scio_h5_request requests[N_FILES];
    uint64_t start[SCIO_H5_MAX_RANK];
} many;

static void
many_open(many *m)
{
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < N_FILES; i++) {
        scio_h5_dataset *const d = m->datasets[i] = corpus_dataset(FILES[i]);
        scio_h5_request *const r = &m->requests[i];

        r->dataset = d;
        r->start = m->start;
        r->count = d->space.dims;
        r->is_vlen = d->type->type_class == SCIO_H5_VLEN;
        r->dtype = r->is_vlen || d->space.space_class == SCIO_H5_NULL ? SCIO_DTYPE_NONE : SCIO_F64;
        r->out_nbytes = r->is_vlen ? 0 : (size_t)d->space.n_items * sizeof(double);
        r->out = r->is_vlen ? NULL : malloc(r->out_nbytes + 1);
    }
}

static void
many_release(many *m)
{
    for (size_t i = 0; i < N_FILES; i++) {
        scio_buf_release(m->requests[i].offsets);
        scio_buf_release(m->requests[i].payload);
        m->requests[i].offsets = m->requests[i].payload = NULL;
    }
}

static void
many_close(many *m)
{
    many_release(m);
    for (size_t i = 0; i < N_FILES; i++) {
        free(m->requests[i].out);
        scio_h5_dataset_free(m->datasets[i]);
    }
}

static bool
is_equal_vlen(const scio_h5_request *r)
{
    const size_t n_items = (size_t)r->dataset->space.n_items, itemsize = r->dataset->type->itemsize;
    uint8_t *const records = malloc(n_items * itemsize);
    scio_buf *offsets = NULL, *payload = NULL;
    bool is_equal = false;

    if (scio_h5_dataset_read(r->dataset, r->start, r->count, SCIO_DTYPE_NONE, records,
                             n_items * itemsize, NULL, NULL) == SCIO_OK &&
        scio_h5_vlen_read(r->dataset->file, r->dataset->type, records, itemsize, n_items, &offsets,
                          &payload, NULL) == SCIO_OK)
        is_equal = scio_buf_nbytes(offsets) == scio_buf_nbytes(r->offsets) &&
                   scio_buf_nbytes(payload) == scio_buf_nbytes(r->payload) &&
                   memcmp(scio_buf_data(offsets), scio_buf_data(r->offsets),
                          scio_buf_nbytes(offsets)) == 0 &&
                   memcmp(scio_buf_data(payload), scio_buf_data(r->payload),
                          scio_buf_nbytes(payload)) == 0;
    scio_buf_release(offsets);
    scio_buf_release(payload);
    free(records);
    return is_equal;
}

static bool
is_equal_to_one_by_one(const scio_h5_request *r)
{
    uint8_t *const out = malloc(r->out_nbytes + 1);
    bool is_equal;

    if (r->is_vlen) {
        free(out);
        return is_equal_vlen(r);
    }
    is_equal = scio_h5_dataset_read(r->dataset, r->start, r->count, r->dtype, out, r->out_nbytes,
                                    NULL, NULL) == SCIO_OK &&
               memcmp(out, r->out, r->out_nbytes) == 0;
    free(out);
    return is_equal;
}

TEST(together_they_are_what_they_are_alone)
{
    static const size_t parallel[] = {0, 1, 2, 3};
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL;
    many m;

    CHECK(scio_pool_new(3, &pool, &err) == SCIO_OK);
    for (size_t k = 0; k < N_OF(parallel); k++) {
        const scio_h5_read_options options = {pool, parallel[k], NULL};

        many_open(&m);
        CHECK(scio_h5_datasets_read(m.requests, N_FILES, &options, &err) == SCIO_OK);
        for (size_t i = 0; i < N_FILES; i++)
            CHECK(is_equal_to_one_by_one(&m.requests[i]));
        many_close(&m);
    }
    CHECK(scio_h5_datasets_read(NULL, 0, NULL, &err) == SCIO_OK);
    scio_pool_free(pool);
}

/* ---- looking at values ---- */

#define N_PAGED 134160

typedef struct look {
    uint8_t seen[N_PAGED]; /* stretches do not overlap, so threads do not meet here */
    const double *values;
    uint64_t i_refused;
} look;

static scio_status
look_at(const void *context, const void *items, size_t n_items, uint64_t i_first, scio_error *err)
{
    look *const l = (look *)(uintptr_t)context;

    CHECK(items == l->values + i_first);
    for (uint64_t i = i_first; i < i_first + n_items; i++) {
        if (i == l->i_refused)
            return scio_fail(err, SCIO_ECORRUPT, "item %llu", (unsigned long long)i);
        l->seen[i]++;
    }
    return SCIO_OK;
}

/* Reads [start, start + count) of the long line beside others. */
static scio_status
read_looked_at(uint64_t start, uint64_t count, look *l, scio_error *err)
{
    const uint64_t starts[1] = {start}, counts[1] = {count};
    const scio_h5_read_options options = {NULL, 3, NULL};
    scio_status status;
    many m;

    many_open(&m);
    m.requests[2].start = starts;
    m.requests[2].count = counts;
    m.requests[2].out_nbytes = count * sizeof(double);
    m.requests[2].check = look_at;
    m.requests[2].check_context = l;
    l->values = m.requests[2].out;
    status = scio_h5_datasets_read(m.requests, N_FILES, &options, err);
    many_close(&m);
    return status;
}

TEST(every_value_is_looked_at_once)
{
    static const uint64_t boxes[][2] = {
        {0, N_PAGED}, {1, N_PAGED - 2}, {77, 20000}, {5, 3}, {9, 0}};
    scio_error err = SCIO_ERROR_INIT;
    look *const l = malloc(sizeof *l);

    for (size_t k = 0; k < N_OF(boxes); k++) {
        size_t n_wrong = 0;

        memset(l, 0, sizeof *l);
        l->i_refused = UINT64_MAX;
        CHECK(read_looked_at(boxes[k][0], boxes[k][1], l, &err) == SCIO_OK);
        for (uint64_t i = 0; i < N_PAGED; i++)
            n_wrong += l->seen[i] != (i < boxes[k][1]);
        CHECK(n_wrong == 0);
    }
    free(l);
}

TEST(a_refused_value_names_its_dataset)
{
    scio_error err = SCIO_ERROR_INIT;
    look *const l = calloc(1, sizeof *l);

    l->i_refused = 100000;
    CHECK(read_looked_at(0, N_PAGED, l, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "/d: item 100000");
    free(l);
}

TEST(only_lines_can_be_looked_at)
{
    scio_error err = SCIO_ERROR_INIT;
    many m;

    many_open(&m);
    m.requests[1].check = look_at;
    CHECK(scio_h5_datasets_read(m.requests, N_FILES, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "2 dimensions");
    many_close(&m);
}

/* ---- failures ---- */

TEST(the_first_failure_is_told)
{
    const volatile int cancel = 1;
    const scio_h5_read_options options = {NULL, SIZE_MAX, &cancel};
    scio_error err = SCIO_ERROR_INIT;
    many m;

    many_open(&m);
    m.requests[4].out_nbytes--;
    CHECK(scio_h5_datasets_read(m.requests, N_FILES, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "/d: the result has");
    many_release(&m);
    m.requests[4].out_nbytes++;
    CHECK(scio_h5_datasets_read(m.requests, N_FILES, &options, NULL) == SCIO_ECANCEL);
    many_close(&m);
}

TEST(reading_survives_every_failing_allocation)
{
    const scio_h5_read_options options = {NULL, 0, NULL};
    const int64_t live = scio_stats_get(SCIO_STAT_live_bufs);
    scio_status status;
    size_t k = 0;
    many m;

    do {
        many_open(&m); /* with chunk tables that are not made yet */
        scio_mem_fail_at(k++);
        status = scio_h5_datasets_read(m.requests, N_FILES, &options, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        many_close(&m);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live);
    } while (status != SCIO_OK && k < 1000);
    CHECK(k > 20 && k < 1000);
}
