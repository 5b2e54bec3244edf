/* Reading: boxes of any rank against a plain copy, casts, holes, filters skipped and broken,
 * threads. */
#include "base/pool.h"
#include "dataset_testing.h"

#include <sys/mman.h>
#include <unistd.h>

#define N_OF(array) (sizeof(array) / sizeof *(array))

static uint64_t
random_u64(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* ---- boxes, without files ---- */

/* The plain way: one item at a time. */
static void
copy_plainly(unsigned rank, const uint64_t *count, const uint64_t *src_dims,
             const uint64_t *src_start, const uint64_t *dst_dims, const uint64_t *dst_start,
             const uint8_t *src, uint8_t *dst)
{
    uint64_t n_items = 1;

    for (unsigned k = 0; k < rank; k++)
        n_items *= count[k];
    for (uint64_t i = 0; i < n_items; i++) {
        uint64_t rest = i, src_at = 0, dst_at = 0, src_stride = 1, dst_stride = 1;

        for (unsigned k = rank; k-- > 0;) {
            src_at += (src_start[k] + rest % count[k]) * src_stride;
            dst_at += (dst_start[k] + rest % count[k]) * dst_stride;
            rest /= count[k];
            src_stride *= src_dims[k];
            dst_stride *= dst_dims[k];
        }
        dst[dst_at] = src[src_at];
    }
}

TEST(boxes_are_copied_as_one_item_at_a_time)
{
    static uint8_t src[4096], dst[4096], expected[4096];
    uint64_t state = 7;

    for (size_t i = 0; i < sizeof src; i++)
        src[i] = (uint8_t)random_u64(&state);
    for (int round = 0; round < 3000; round++) {
        const unsigned rank = (unsigned)(random_u64(&state) % 5);
        uint64_t count[4], src_dims[4], src_start[4], dst_dims[4], dst_start[4];
        scio_h5_box box;

        for (unsigned k = 0; k < rank; k++) {
            count[k] = 1 + random_u64(&state) % 5;
            src_start[k] = random_u64(&state) % 2 * (random_u64(&state) % 3);
            dst_start[k] = random_u64(&state) % 2 * (random_u64(&state) % 3);
            src_dims[k] = src_start[k] + count[k] + random_u64(&state) % 2;
            dst_dims[k] = dst_start[k] + count[k] + random_u64(&state) % 2;
        }
        memset(dst, 0, sizeof dst);
        memset(expected, 0, sizeof expected);
        copy_plainly(rank, count, src_dims, src_start, dst_dims, dst_start, src, expected);
        scio_h5_box_init(rank, count, src_dims, src_start, dst_dims, dst_start, &box);
        scio_h5_box_copy(&box, 1, src, dst);
        CHECK(memcmp(dst, expected, sizeof dst) == 0);
        for (size_t i = 0; i < sizeof expected; i++) /* a fill touches the same items */
            if (dst[i] != 0)
                expected[i] = 0;
        scio_h5_box_fill(&box, 1, NULL, dst);
        CHECK(memcmp(dst, expected, sizeof dst) == 0);
    }
}

TEST(whole_rows_are_one_run)
{
    const uint64_t count[] = {3, 4, 5}, src_dims[] = {9, 4, 5}, src_start[] = {2, 0, 0};
    scio_h5_box box;

    scio_h5_box_init(3, count, src_dims, src_start, count, NULL, &box);
    CHECK(box.n_runs == 1 && box.run_items == 60 && box.src_first == 40 && box.dst_first == 0);
}

TEST(items_are_repeated_for_any_size)
{
    static uint8_t out[70000];
    static const size_t sizes[] = {1, 3, 16, 1000, 17000};

    for (size_t i = 0; i < N_OF(sizes); i++) {
        const size_t n_items = sizeof out / sizes[i];
        uint8_t item[17000];

        for (size_t k = 0; k < sizes[i]; k++)
            item[k] = (uint8_t)(k * 31 + i + 1);
        memset(out, 0, sizeof out);
        scio_h5_fill_items(out, item, sizes[i], n_items);
        for (size_t k = 0; k < n_items; k++)
            CHECK(memcmp(out + k * sizes[i], item, sizes[i]) == 0);
        CHECK(n_items * sizes[i] == sizeof out || out[n_items * sizes[i]] == 0);
    }
}

/* ---- boxes of files ---- */

static const char *const FILES[] = {
    "btree1",
    "single_plain",
    "implicit_larger",
    "fixed_latest",
    "btree2_latest",
    "edge_raw",
    "contiguous",
    "contiguous_big",
    "compact",
    "line",
    "line_big",
    "line_plain",
    "masks",
    "lzf",
    "cube",
    "userblock",
    "big",
    "extensible_latest",
    "sizes4_fixed",
    "contiguous_hole",
};

static double
expected_double(const scio_h5_dataset *d, const uint64_t *start, const uint64_t *count, uint64_t i)
{
    uint64_t at = 0, stride = 1;

    for (unsigned k = d->space.rank; k-- > 0;) {
        at += (start[k] + i % count[k]) * stride;
        i /= count[k];
        stride *= d->space.dims[k];
    }
    return expected_value(at);
}

static double
load_double(scio_dtype dtype, const uint8_t *out, uint64_t i)
{
    double value = 0;

    CHECK(scio_cast(dtype, out + i * scio_dtype_itemsize(dtype), SCIO_F64, &value, 1, NULL) ==
          SCIO_OK);
    return value;
}

TEST(any_box_of_any_file_as_any_type_has_the_right_values)
{
    static const scio_dtype dtypes[] = {SCIO_I8,  SCIO_I32, SCIO_U64, SCIO_F16,
                                        SCIO_F32, SCIO_F64, SCIO_I16};
    static const size_t parallel[] = {0, 1, 3};
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL;
    uint64_t state = 11;

    CHECK(scio_pool_new(3, &pool, &err) == SCIO_OK);
    for (size_t i = 0; i < N_OF(FILES); i++) {
        scio_h5_dataset *d = corpus_dataset(FILES[i]);
        const bool is_hole = strcmp(FILES[i], "contiguous_hole") == 0;

        for (int round = 0; round < 60; round++) {
            uint64_t start[4] = {0}, count[4] = {0}, n_items = 1;
            const scio_dtype dtype = is_hole ? SCIO_F32 : dtypes[random_u64(&state) % N_OF(dtypes)];
            const scio_h5_read_options options = {pool, parallel[random_u64(&state) % 3], NULL};
            uint8_t *out = NULL;
            size_t n_wrong = 0;

            for (unsigned k = 0; k < d->space.rank; k++) {
                const bool is_all = random_u64(&state) % 4 == 0;

                start[k] = is_all ? 0 : random_u64(&state) % d->space.dims[k];
                count[k] = is_all ? d->space.dims[k]
                                  : 1 + random_u64(&state) % (d->space.dims[k] - start[k]);
                n_items *= count[k];
            }
            out = malloc(n_items * scio_dtype_itemsize(dtype)); /* exact, for ASan */
            CHECK(scio_h5_dataset_read(d, start, count, dtype, out,
                                       n_items * scio_dtype_itemsize(dtype), &options,
                                       &err) == SCIO_OK);
            for (uint64_t k = 0; k < n_items; k++) {
                const double value = is_hole ? 2.5 : expected_double(d, start, count, k);

                n_wrong += load_double(dtype, out, k) != value;
            }
            CHECK(n_wrong == 0);
            free(out);
        }
        if (test_has_failed) {
            printf("    %s: %s\n", FILES[i], err.message);
            err = (scio_error)SCIO_ERROR_INIT;
        }
        scio_h5_dataset_free(d);
    }
    scio_pool_free(pool);
}

TEST(raw_bytes_come_in_the_order_of_the_file)
{
    scio_h5_dataset *d = corpus_dataset("line_big");
    uint8_t out[400];

    CHECK(read_all(d, SCIO_DTYPE_NONE, out, sizeof out, NULL) == SCIO_OK);
    CHECK(out[4] == 0 && out[7] == 7); /* element 1, big-endian */
    CHECK(read_all(d, SCIO_I32, out, sizeof out, NULL) == SCIO_OK);
    CHECK(out[4] == 7 && out[7] == 0);
    scio_h5_dataset_free(d);
}

TEST(nothing_is_written_outside_the_result)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *memory =
        mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED);
    CHECK(mprotect(memory, page, PROT_NONE) == 0);
    CHECK(mprotect(memory + 2 * page, page, PROT_NONE) == 0);
    for (size_t i = 0; i < N_OF(FILES); i++) {
        scio_h5_dataset *d = corpus_dataset(FILES[i]);
        const size_t nbytes = (size_t)d->space.n_items * d->type->itemsize;

        if (nbytes <= page)
            for (int at_end = 0; at_end < 2; at_end++)
                CHECK(read_all(d, SCIO_DTYPE_NONE, memory + page + (at_end ? page - nbytes : 0),
                               nbytes, NULL) == SCIO_OK);
        scio_h5_dataset_free(d);
    }
    (void)munmap(memory, 3 * page);
}

TEST(empty_and_null_datasets_give_nothing)
{
    static const char *const files[] = {"empty", "null"};

    for (size_t i = 0; i < 2; i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const scio_h5_unit *units = NULL;
        uint8_t out[1];

        CHECK(read_all(d, SCIO_DTYPE_NONE, out, 0, NULL) == SCIO_OK);
        CHECK(read_all(d, SCIO_F64, out, 0, NULL) == SCIO_OK);
        CHECK(scio_h5_dataset_units(d, &units, NULL) == SCIO_OK);
        scio_h5_dataset_free(d);
    }
}

TEST(a_scalar_is_one_item)
{
    scio_h5_dataset *d = corpus_dataset("scalar");
    double out = 0;

    CHECK(read_all(d, SCIO_F64, &out, sizeof out, NULL) == SCIO_OK && out == 3.5);
    scio_h5_dataset_free(d);
}

TEST(bool_bytes_other_than_0_and_1_are_true)
{
    image im = image_load("bool");
    const size_t stored = image_find(&im, "\1\0\1\0\1\0\1\0", 8, 0);
    scio_h5_dataset *d = NULL;
    uint8_t out[30];

    im.data[stored] = 7;
    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    CHECK(read_all(d, SCIO_BOOL, out, sizeof out, NULL) == SCIO_OK);
    for (int k = 0; k < 30; k++)
        CHECK(out[k] == (expected_value((uint64_t)k) % 2 == 0));
    CHECK(read_all(d, SCIO_DTYPE_NONE, out, sizeof out, NULL) == SCIO_OK && out[0] == 7);
    scio_h5_dataset_free(d);
    image_free(&im);
}

/* ---- refusals ---- */

TEST(a_box_outside_the_shape_names_axis_and_range)
{
    scio_h5_dataset *d = corpus_dataset("btree1");
    static int32_t out[23 * 31];
    const uint64_t cases[][4] = {{0, 0, 24, 31}, {23, 0, 1, 1},         {0, 31, 1, 1},
                                 {24, 0, 0, 1},  {1, 1, UINT64_MAX, 1}, {UINT64_MAX, 0, 1, 1}};

    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_error err = SCIO_ERROR_INIT;

        CHECK(scio_h5_dataset_read(d, cases[i], cases[i] + 2, SCIO_I32, out, sizeof out, NULL,
                                   &err) == SCIO_ERANGE);
        CHECK_STR(err.message, i == 2 ? "/d: 1 items from 31 on of axis 1, which has 31" : "/d: ");
    }
    scio_h5_dataset_free(d);
}

TEST(a_result_of_another_size_is_refused)
{
    scio_h5_dataset *d = corpus_dataset("scalar");
    scio_error err = SCIO_ERROR_INIT;
    double out = 0;

    CHECK(scio_h5_dataset_read(d, NULL, NULL, SCIO_F64, &out, 4, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "the result has 4 bytes, expected 8");
    scio_h5_dataset_free(d);
}

TEST(the_limit_of_a_read_is_respected)
{
    image im = image_load("contiguous");
    scio_h5_limits limits;
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    static int32_t out[23 * 31];

    scio_h5_limits_default(&limits);
    limits.element_nbytes = 2851;
    CHECK(open_d(image_open_limited(&im, &limits), &d, &err) == SCIO_OK);
    CHECK(read_all(d, SCIO_I32, out, sizeof out, &err) == SCIO_EUNSAFE);
    CHECK_STR(err.message, "713 items of 4 bytes, the limit element_nbytes is 2851");
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(the_limit_of_a_chunk_is_respected)
{
    image im = image_load("line");
    scio_h5_limits limits;
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    static int32_t out[105];

    scio_h5_limits_default(&limits);
    limits.chunk_nbytes = 39;
    CHECK(open_d(image_open_limited(&im, &limits), &d, &err) == SCIO_OK);
    CHECK(read_all(d, SCIO_I32, out, sizeof out, &err) == SCIO_EUNSAFE);
    CHECK_STR(err.message, "/d: chunk (0,) at byte ");
    CHECK_STR(err.message, "40 decoded; the limit chunk_nbytes is 39");
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(types_without_numbers_are_read_raw_only)
{
    scio_h5_dataset *d = corpus_dataset("compound");
    scio_error err = SCIO_ERROR_INIT;
    uint8_t out[240];
    int32_t first;

    CHECK(read_all(d, SCIO_F64, out, sizeof out, &err) == SCIO_ETYPE);
    CHECK_STR(err.message, "/d: the elements are no numbers: they have no float64 value");
    CHECK(read_all(d, SCIO_DTYPE_NONE, out, sizeof out, NULL) == SCIO_OK);
    memcpy(&first, out + 12 * 13, sizeof first);
    CHECK(first == expected_value(13));
    (void)snprintf(d->type->unsupported, sizeof d->type->unsupported, "time of 4 bytes");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(read_all(d, SCIO_DTYPE_NONE, out, sizeof out, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "time of 4 bytes");
    scio_h5_dataset_free(d);
}

TEST(a_value_that_does_not_fit_names_its_chunk)
{
    image im = image_load("line_plain");
    const size_t stored = image_find(&im, "\x07\0\0\0\x0e\0\0\0", 8, 0); /* elements 1, 2 */
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t out[105];

    image_put(&im, stored + 9 * 4, 4, 300); /* element 10: the first of chunk 1 */
    CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
    CHECK(read_all(d, SCIO_U8, out, sizeof out, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "/d: chunk (1,) at byte ");
    CHECK_STR(err.message, "300");
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(a_fill_value_that_does_not_fit_matters_where_it_is_met)
{
    scio_h5_dataset *d = corpus_dataset("btree1_holes"); /* fill -3, chunk 4 = [28, 35) written */
    const scio_h5_read_options options = {NULL, 0, NULL};
    const uint64_t start = 30, count = 5, zero = 0;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t out[5];

    CHECK(scio_h5_dataset_read(d, &start, &count, SCIO_U8, out, 5, &options, &err) == SCIO_OK);
    CHECK(out[0] == 5 && out[4] == 5);
    CHECK(scio_h5_dataset_read(d, &zero, &count, SCIO_U8, out, 5, &options, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "/d: chunk (0,): fill value: ");
    scio_h5_dataset_free(d);
}

/* ---- broken chunks ---- */

TEST(a_broken_chunk_is_named_with_its_place)
{
    image im = image_load("line");
    const size_t tree = image_find(&im, "TREE\1", 5, 0);
    const size_t chunk3 = (size_t)image_get(&im, tree + 48 + 3 * 32, 8);
    char expected[64];

    im.data[chunk3 + 6] ^= 0x40;
    (void)snprintf(expected, sizeof expected, "/d: chunk (3,) at byte %zu: filter 1 of 1", chunk3);
    check_fails(&im, SCIO_ECORRUPT, expected);
    image_free(&im);
}

TEST(other_chunks_than_the_broken_one_are_read)
{
    image im = image_load("line");
    const size_t tree = image_find(&im, "TREE\1", 5, 0);
    const uint64_t start = 40, count = 20;
    scio_h5_dataset *d = NULL;
    int32_t out[20];

    im.data[image_get(&im, tree + 48 + 3 * 32, 8)] ^= 0x40;
    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_read(d, &start, &count, SCIO_I32, out, sizeof out, NULL, NULL) ==
          SCIO_OK);
    CHECK(out[19] == expected_value(59));
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(a_stored_size_that_cannot_become_the_chunk_takes_no_memory)
{
    image im = image_load("line");
    const size_t layout = image_find(&im, "\x03\x02\x02", 3, 0);
    const size_t tree = image_find(&im, "TREE\1", 5, 0);
    const size_t space = image_find(&im, "\x69\0\0\0\0\0\0\0", 8, 0);

    image_put(&im, space, 8, 10);
    image_put(&im, tree + 6, 2, 1);            /* one chunk */
    image_put(&im, layout + 11, 4, 100000000); /* of 400 MB */
    check_fails(&im, SCIO_ECORRUPT, "stored bytes cannot decode to 400000000");
    image_free(&im);
}

TEST(filters_that_are_not_decoded_fail_on_reading_only)
{
    image im = image_load("lzf");
    const size_t message = image_find_text(&im, "lzf"); /* id 8 bytes before its name */

    CHECK(image_get(&im, message - 8, 2) == 32000);
    image_put(&im, message - 8, 2, 32026);
    check_fails(&im, SCIO_EUNSUPPORTED, "32026");
    image_free(&im);
}

/* ---- units ---- */

typedef struct collected {
    uint8_t data[1 << 18];
    size_t nbytes, n_units, n_planes;
    uint64_t i_next;
    const scio_h5_dataset *dataset;
} collected;

static scio_status
collect(void *context, uint64_t i_unit, const void *data, size_t nbytes, size_t shuffle_itemsize,
        scio_error *err)
{
    collected *c = context;

    CHECK(i_unit == c->i_next++);
    CHECK((uintptr_t)data % 16 == 0);
    CHECK(nbytes <= sizeof c->data - c->nbytes);
    if (shuffle_itemsize > 1) {
        c->n_planes++;
        SCIO_TRY(scio_unshuffle(data, nbytes, shuffle_itemsize, c->data + c->nbytes, err));
    } else {
        memcpy(c->data + c->nbytes, data, nbytes);
    }
    c->nbytes += nbytes;
    c->n_units++;
    return SCIO_OK;
}

TEST(units_are_visited_in_order_decoded_or_as_planes)
{
    static collected plain, planes;
    scio_h5_dataset *d = corpus_dataset("btree1");
    scio_h5_scratch *scratch = NULL;
    const int64_t before = scio_stats_get(SCIO_STAT_chunks_decoded);

    memset(&plain, 0, sizeof plain);
    memset(&planes, 0, sizeof planes);
    plain.i_next = planes.i_next = 3;
    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_decode(d, 3, 20, false, scratch, collect, &plain, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) == before + 20);
    CHECK(scio_h5_dataset_decode(d, 3, 20, true, scratch, collect, &planes, NULL) == SCIO_OK);
    CHECK(plain.n_units == 20 && plain.nbytes == 20 * 140 && plain.n_planes == 0);
    CHECK(planes.n_planes == 20 && memcmp(plain.data, planes.data, plain.nbytes) == 0);
    CHECK(scio_h5_scratch_nbytes(scratch) > sizeof *scratch + 140);
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

TEST(unfiltered_units_come_aligned)
{
    static collected c;
    scio_h5_dataset *d = corpus_dataset("line_plain"); /* chunks of 40 bytes, back to back */
    scio_h5_scratch *scratch = NULL;
    int32_t value;

    memset(&c, 0, sizeof c);
    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_decode(d, 0, 11, false, scratch, collect, &c, NULL) == SCIO_OK);
    memcpy(&value, c.data + 4 * 104, sizeof value);
    CHECK(c.nbytes == 11 * 40 && value == expected_value(104));
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

TEST(either_deflate_decoder_gives_the_same)
{
    for (int engine = -1; engine < 2; engine++) { /* -1: the dataset chooses */
        scio_h5_dataset *d = corpus_dataset("line_many");
        uint8_t out[260];
        size_t n_wrong = 0;

        atomic_store(&scio_h5_dataset_state(d)->engine, engine);
        CHECK(read_all(d, SCIO_U8, out, sizeof out, NULL) == SCIO_OK);
        for (size_t k = 0; k < 260; k++)
            n_wrong += out[k] != expected_value(k);
        CHECK(n_wrong == 0);
        CHECK(atomic_load(&scio_h5_dataset_state(d)->engine) >= 0);
        scio_h5_dataset_free(d);
    }
}

TEST(choosing_a_decoder_leaves_a_broken_chunk_to_the_reader)
{
    image im = image_load("line_many");
    const uint64_t start = 0, count = 10;
    scio_h5_dataset *d = NULL;
    scio_h5_unit *units;
    const scio_h5_unit *borrowed = NULL;
    uint8_t out[10];

    CHECK(image_dataset(&im, &d, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_units(d, &borrowed, NULL) == SCIO_OK);
    units = scio_h5_dataset_state(d)->units;
    units[130].nbytes = 1; /* in the middle: one that is tried */
    CHECK(scio_h5_dataset_read(d, &start, &count, SCIO_U8, out, sizeof out, NULL, NULL) == SCIO_OK);
    CHECK(out[9] == expected_value(9));
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(decoding_allocates_nothing_once_it_runs)
{
    static collected c;
    scio_h5_dataset *d = corpus_dataset("btree1");
    scio_h5_scratch *scratch = NULL;

    memset(&c, 0, sizeof c);
    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_decode(d, 0, 25, false, scratch, collect, &c, NULL) == SCIO_OK);
    c.nbytes = 0;
    c.i_next = 0;
    scio_mem_fail_at(0); /* from here on every allocation fails */
    CHECK(scio_h5_dataset_decode(d, 0, 25, false, scratch, collect, &c, NULL) == SCIO_OK);
    CHECK(scio_mem_n_asked() == 0);
    scio_mem_fail_at(SIZE_MAX);
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

TEST(neighbours_on_disk_are_read_at_once)
{
    static collected c;
    scio_h5_dataset *d = corpus_dataset("line");
    scio_h5_scratch *scratch = NULL;
    int64_t n_reads, n_coalesced;

    memset(&c, 0, sizeof c);
    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_h5_table_ensure(d, NULL) == SCIO_OK);
    n_reads = scio_stats_get(SCIO_STAT_n_reads);
    n_coalesced = scio_stats_get(SCIO_STAT_coalesced_reads);
    CHECK(scio_h5_dataset_decode(d, 0, 11, false, scratch, collect, &c, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_n_reads) == n_reads + 1);
    CHECK(scio_stats_get(SCIO_STAT_coalesced_reads) == n_coalesced + 1);
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

TEST(units_outside_the_grid_are_refused)
{
    static collected c;
    scio_h5_dataset *d = corpus_dataset("line");
    scio_h5_scratch *scratch = NULL;
    const uint64_t cases[][2] = {{0, 12}, {11, 1}, {12, 0}, {1, UINT64_MAX}, {UINT64_MAX, 1}};

    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_error err = SCIO_ERROR_INIT;

        CHECK(scio_h5_dataset_decode(d, cases[i][0], cases[i][1], false, scratch, collect, &c,
                                     &err) == SCIO_ERANGE);
        CHECK_STR(err.message, "/d: units [");
    }
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

static scio_status
refuse_unit_2(void *context, uint64_t i_unit, const void *data, size_t nbytes,
              size_t shuffle_itemsize, scio_error *err)
{
    (void)context;
    (void)data;
    (void)nbytes;
    (void)shuffle_itemsize;
    return i_unit == 2 ? scio_fail(err, SCIO_ECANCEL, "enough") : SCIO_OK;
}

TEST(the_visitors_error_is_handed_on)
{
    scio_h5_dataset *d = corpus_dataset("line");
    scio_h5_scratch *scratch = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    CHECK(scio_h5_dataset_decode(d, 0, 11, false, scratch, refuse_unit_2, NULL, &err) ==
          SCIO_ECANCEL);
    CHECK_STR(err.message, "enough");
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
}

/* ---- long data ---- */

#define N_ROWS 40000       /* more than one piece of 4 MiB */
#define ROWS_PER_UNIT 2114 /* 256 KiB */
#define N_LONG_UNITS 19
#define LAST_NBYTES ((N_ROWS - (N_LONG_UNITS - 1) * ROWS_PER_UNIT) * 124)

/* contiguous.h5 with N_ROWS rows of 31 elements, appended to it. */
static image
make_long(void)
{
    image im = image_load("contiguous");
    const size_t space = image_find(&im, "\x17\0\0\0\0\0\0\0\x1f\0\0\0\0\0\0\0", 16, 0);
    size_t at;

    image_put(&im, space, 8, N_ROWS);      /* extent */
    image_put(&im, space + 16, 8, N_ROWS); /* and maximum */
    at = image_append(&im, NULL, (size_t)N_ROWS * 31 * 4);
    for (size_t i = 0; i < (size_t)N_ROWS * 31; i++)
        image_put(&im, at + 4 * i, 4, (uint64_t)expected_value(i));
    for (size_t k = 0;; k++) {
        const size_t layout = image_find(&im, "\x03\x01", 2, k);

        if (image_get(&im, layout + 10, 8) != 23 * 31 * 4)
            continue;
        image_put(&im, layout + 2, 8, at);
        image_put(&im, layout + 10, 8, (uint64_t)N_ROWS * 31 * 4);
        return im;
    }
}

TEST(long_contiguous_data_are_units_of_whole_rows)
{
    static collected c;
    image im = make_long();
    scio_h5_dataset *d = NULL;
    scio_h5_scratch *scratch = NULL;
    const scio_h5_unit *units = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t n_bytes = 0;

    CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
    CHECK(d->unit_dims[0] == ROWS_PER_UNIT && d->unit_dims[1] == 31 && d->n_units == N_LONG_UNITS);
    CHECK(scio_h5_dataset_units(d, &units, &err) == SCIO_OK);
    for (size_t i = 0; i < N_LONG_UNITS; i++) {
        CHECK(units[i].is_raw &&
              units[i].nbytes == (i + 1 < N_LONG_UNITS ? d->unit_nbytes : LAST_NBYTES));
        CHECK(i == 0 || units[i].position == units[i - 1].position + units[i - 1].nbytes);
        n_bytes += units[i].nbytes;
    }
    CHECK(n_bytes == (size_t)N_ROWS * 124);
    CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
    memset(&c, 0, sizeof c);
    c.i_next = N_LONG_UNITS - 1; /* the short one */
    CHECK(scio_h5_dataset_decode(d, N_LONG_UNITS - 1, 1, true, scratch, collect, &c, &err) ==
          SCIO_OK);
    CHECK(c.nbytes == LAST_NBYTES);
    scio_h5_scratch_free(scratch);
    scio_h5_dataset_free(d);
    image_free(&im);
}

TEST(long_contiguous_data_are_read_in_every_way)
{
    static const struct {
        uint64_t start[2], count[2];
    } boxes[] = {{{0, 0}, {N_ROWS, 31}},  {{7, 0}, {N_ROWS - 9, 31}}, {{0, 3}, {N_ROWS, 1}},
                 {{100, 1}, {20000, 29}}, {{N_ROWS - 1, 30}, {1, 1}}, {{5, 5}, {9000, 17}}};
    image im = make_long();
    scio_h5_dataset *d = NULL;
    scio_error err = SCIO_ERROR_INIT;
    uint8_t *out = malloc((size_t)N_ROWS * 31 * 8);

    CHECK(image_dataset(&im, &d, &err) == SCIO_OK);
    for (size_t i = 0; i < N_OF(boxes); i++)
        for (int is_cast = 0; is_cast < 2; is_cast++) {
            const scio_dtype dtype = is_cast ? SCIO_F64 : SCIO_I32;
            const uint64_t n_items = boxes[i].count[0] * boxes[i].count[1];
            const scio_h5_read_options options = {NULL, is_cast ? SIZE_MAX : 0, NULL};
            size_t n_wrong = 0;

            CHECK(scio_h5_dataset_read(d, boxes[i].start, boxes[i].count, dtype, out,
                                       n_items * scio_dtype_itemsize(dtype), &options,
                                       &err) == SCIO_OK);
            for (uint64_t k = 0; k < n_items; k++)
                n_wrong += load_double(dtype, out, k) !=
                           expected_double(d, boxes[i].start, boxes[i].count, k);
            CHECK(n_wrong == 0);
        }
    scio_h5_dataset_free(d);
    free(out);
    image_free(&im);
}

/* ---- straight into place ---- */

static scio_status
read_with_scratch(scio_h5_dataset *d, scio_dtype dtype, scio_h5_mode mode, void *out,
                  const uint64_t *start, const uint64_t *count, scio_h5_scratch *scratch)
{
    scio_h5_reading r = {.dataset = d, .start = start, .count = count, .out = out, .mode = mode};

    r.src_dtype = d->type->dtype;
    r.dst_dtype = dtype;
    r.src_itemsize = d->type->itemsize;
    r.dst_itemsize = scio_dtype_itemsize(dtype);
    SCIO_TRY(scio_h5_table_ensure(d, NULL));
    for (size_t i = 0, n = scio_h5_chunked_jobs(&r, 1); i < n; i++)
        SCIO_TRY(scio_h5_chunked_run(&r, i, scratch, NULL));
    return SCIO_OK;
}

TEST(whole_chunks_of_a_line_are_inflated_into_the_result)
{
    static const struct {
        const char *file;
        scio_dtype dtype;
        scio_h5_mode mode;
        uint64_t count;
        bool is_direct;
    } cases[] = {
        {"line", SCIO_I32, SCIO_H5_MODE_COPY, 100, true},
        {"line", SCIO_I32, SCIO_H5_MODE_COPY, 105, false}, /* the last chunk has 5 elements */
        {"line", SCIO_F32, SCIO_H5_MODE_CAST, 100, false},
        {"line_big", SCIO_I32, SCIO_H5_MODE_SWAP, 100, true},
    };

    for (size_t i = 0; i < N_OF(cases); i++) {
        scio_h5_dataset *d = corpus_dataset(cases[i].file);
        const uint64_t start = 0;
        scio_h5_scratch *scratch = NULL;
        int32_t out[105];
        const int64_t before = scio_stats_get(SCIO_STAT_direct_chunks);

        CHECK(scio_h5_scratch_new(&scratch, NULL) == SCIO_OK);
        CHECK(read_with_scratch(d, cases[i].dtype, cases[i].mode, out, &start, &cases[i].count,
                                scratch) == SCIO_OK);
        CHECK((scratch->unit.capacity == 0) == cases[i].is_direct);
        CHECK(scio_stats_get(SCIO_STAT_direct_chunks) >= before + 10);
        if (cases[i].mode != SCIO_H5_MODE_CAST)
            CHECK(out[99] == expected_value(99));
        scio_h5_scratch_free(scratch);
        scio_h5_dataset_free(d);
    }
}

/* ---- memory, cancelling ---- */

TEST(reading_survives_every_failing_allocation)
{
    static const char *const files[] = {"btree1", "btree1_holes", "contiguous_hole", "big"};
    static double out[23 * 31];

    for (size_t i = 0; i < N_OF(files); i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const int64_t live = scio_stats_get(SCIO_STAT_live_bufs);
        scio_status status;
        size_t k = 0;

        do {
            scio_mem_fail_at(k++);
            status = read_all(d, SCIO_F32, out, sizeof out, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        } while (status != SCIO_OK && k < 1000);
        CHECK(k > 1);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live);
        scio_h5_dataset_free(d);
    }
}

TEST(a_cancelled_read_ends)
{
    static const char *const files[] = {"btree1", "contiguous"};
    static int32_t out[23 * 31];
    const volatile int cancel = 1;

    for (size_t i = 0; i < N_OF(files); i++) {
        scio_h5_dataset *d = corpus_dataset(files[i]);
        const uint64_t start[2] = {0, 0}, count[2] = {23, 31};
        const scio_h5_read_options options = {NULL, 0, &cancel};

        CHECK(scio_h5_dataset_read(d, start, count, SCIO_I32, out, sizeof out, &options, NULL) ==
              SCIO_ECANCEL);
        scio_h5_dataset_free(d);
    }
}
