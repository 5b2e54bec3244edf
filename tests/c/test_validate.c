/* The CSR gate: every rule broken alone, with code, place and words; the facts; the threads. */
#include "test.h"

#include "base/mem.h"
#include "base/stats.h"
#include "sparse/csr.h"

#include <inttypes.h>
#include <stdint.h>

/* 4 rows, 5 columns, 6 entries; row 2 is empty. */
static const int64_t good_indptr[] = {0, 2, 3, 3, 6};
static const int32_t good_indices[] = {0, 4, 2, 1, 2, 3};
static const float good_data[] = {1, 2, 3, 4, 5, 6};

static scio_csr_view
good(void)
{
    return (scio_csr_view){4, 5, 6, good_indptr, good_indices, SCIO_I32, good_data, SCIO_F32};
}

static void
check_refused(const scio_csr_view *csr, scio_check level, scio_status status, const char *message)
{
    scio_csr_facts facts = {true, true};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_csr_validate(csr, level, &facts, &err) == status);
    CHECK_STR(err.message, message);
    CHECK(facts.is_sorted && facts.has_duplicates); /* not touched */
    CHECK(scio_csr_validate(csr, level, NULL, NULL) == status);
    CHECK(scio_csr_validate(csr, SCIO_CHECK_FULL, &facts, NULL) == status);
    if (level > SCIO_CHECK_SHAPE)
        CHECK(scio_csr_validate(csr, level - 1, &facts, NULL) == SCIO_OK);
}

TEST(a_good_matrix_passes_every_level)
{
    const scio_csr_view csr = good();
    scio_csr_facts facts = {false, true};

    CHECK(scio_csr_validate(&csr, SCIO_CHECK_SHAPE, NULL, NULL) == SCIO_OK);
    CHECK(scio_csr_validate(&csr, SCIO_CHECK_STRUCTURE, NULL, NULL) == SCIO_OK);
    CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(facts.is_sorted && !facts.has_duplicates);
}

TEST(empty_matrices_pass)
{
    const int64_t zeros[3] = {0, 0, 0};
    const scio_csr_view none = {0, 0, 0, zeros, NULL, SCIO_I32, NULL, SCIO_F32};
    const scio_csr_view no_cols = {2, 0, 0, zeros, NULL, SCIO_U64, NULL, SCIO_F32};
    scio_csr_facts facts = {false, true};

    CHECK(scio_csr_validate(&none, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(facts.is_sorted && !facts.has_duplicates);
    CHECK(scio_csr_validate(&no_cols, SCIO_CHECK_FULL, NULL, NULL) == SCIO_OK);
}

TEST(shape_rules)
{
    scio_csr_view csr = good();

    csr.n_rows = -1;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT,
                  "shape (-1, 5) with 6 values: none may be");
    csr = good();
    csr.n_cols = -5;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT, "shape (4, -5)");
    csr = good();
    csr.nnz = -6;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT, "with -6 values");
    csr = good();
    csr.index_dtype = SCIO_F32;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT, "indices are float32, expected integers");
    csr.index_dtype = SCIO_BOOL;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT, "indices are bool, expected integers");
    csr.index_dtype = SCIO_DTYPE_NONE;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ECORRUPT, "indices are none, expected integers");
    csr = good();
    csr.data_dtype = SCIO_DTYPE_NONE;
    check_refused(&csr, SCIO_CHECK_SHAPE, SCIO_ETYPE, "data have no numeric type");
    csr.data = NULL; /* the structure alone needs no type */
    CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, NULL, NULL) == SCIO_OK);
}

TEST(indptr_begins_at_0)
{
    const int64_t indptr[] = {1, 2, 3, 3, 6};
    /*                        ^ entry 0 would belong to no row */
    scio_csr_view csr = good();

    csr.indptr = indptr;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT, "indptr[0] is 1, expected 0");
}

TEST(indptr_never_decreases)
{
    const int64_t indptr[] = {0, 2, 1, 3, 6};
    /*                              ^ row 1 would end before it begins */
    const int64_t twice[] = {0, 4, 3, 2, 6};
    /*                             ^ the first of two is named */
    const int64_t negative[] = {0, -1, 3, 3, 6};
    scio_csr_view csr = good();

    csr.indptr = indptr;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT,
                  "indptr[2] is 1, less than indptr[1], which is 2 (must not decrease)");
    csr.indptr = twice;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT, "indptr[2] is 3, less than indptr[1]");
    csr.indptr = negative;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT,
                  "indptr[1] is -1, less than indptr[0], which is 0");
}

TEST(indptr_ends_at_nnz)
{
    const int64_t indptr[] = {0, 2, 3, 3, 7};
    /*                                    ^ one more than there are */
    const int64_t beyond[] = {0, 2, 100, 100, 100};
    scio_csr_view csr = good();

    csr.indptr = indptr;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT,
                  "indptr[4] is 7, expected the number of stored values, 6");
    csr.indptr = beyond;
    check_refused(&csr, SCIO_CHECK_STRUCTURE, SCIO_ECORRUPT, "indptr[4] is 100");
}

TEST(indices_are_in_range_and_the_row_is_named)
{
    int32_t indices[6];
    scio_csr_view csr = good();

    csr.indices = indices;
    for (int i = 0; i < 6; i++) {
        const int64_t row = i < 2 ? 0 : i == 2 ? 1 : 3; /* never the empty row 2 */
        char message[80];

        memcpy(indices, good_indices, sizeof indices);
        indices[i] = 5;
        (void)snprintf(message, sizeof message,
                       "indices[%d] is 5 in row %" PRId64 ", not in [0, 5)", i, row);
        check_refused(&csr, SCIO_CHECK_FULL, SCIO_ECORRUPT, message);
        indices[i] = INT32_MIN;
        (void)snprintf(message, sizeof message, "indices[%d] is -2147483648 in row %" PRId64, i,
                       row);
        check_refused(&csr, SCIO_CHECK_FULL, SCIO_ECORRUPT, message);
    }
}

/* Casts small numbers to an index dtype. */
static void
make_indices(scio_dtype dtype, const int64_t *values, size_t n_items, void *out)
{
    CHECK(scio_cast(SCIO_I64, values, dtype, out, n_items, NULL) == SCIO_OK);
}

static const scio_dtype index_dtypes[] = {SCIO_I8, SCIO_I16, SCIO_I32, SCIO_I64,
                                          SCIO_U8, SCIO_U16, SCIO_U32, SCIO_U64};
enum { N_INDEX_DTYPES = sizeof index_dtypes / sizeof *index_dtypes };

TEST(indices_are_checked_in_their_stored_width)
{
    const int64_t values[6] = {0, 4, 2, 1, 2, 3};
    scio_csr_view csr = good();

    for (int k = 0; k < N_INDEX_DTYPES; k++) {
        const size_t itemsize = scio_dtype_itemsize(index_dtypes[k]);
        uint64_t room[6];
        scio_csr_facts facts = {false, true};
        char message[80];

        make_indices(index_dtypes[k], values, 6, room);
        csr.indices = room;
        csr.index_dtype = index_dtypes[k];
        CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
        CHECK(facts.is_sorted && !facts.has_duplicates);
        memset((char *)room + 4 * itemsize, 0xFF, itemsize); /* -1, or the largest unsigned one */
        (void)snprintf(message, sizeof message, "indices[4] is %s in row 3, not in [0, 5)",
                       index_dtypes[k] == SCIO_U8    ? "255"
                       : index_dtypes[k] == SCIO_U16 ? "65535"
                       : index_dtypes[k] == SCIO_U32 ? "4294967295"
                       : index_dtypes[k] == SCIO_U64 ? "18446744073709551615"
                                                     : "-1");
        check_refused(&csr, SCIO_CHECK_FULL, SCIO_ECORRUPT, message);
    }
}

TEST(a_wide_index_is_not_cut_to_a_legal_one)
{
    const int64_t values[6] = {0, 4, (INT64_C(1) << 32) + 2, 1, 2, 3};
    scio_csr_view csr = good();

    csr.indices = values;
    csr.index_dtype = SCIO_I64;
    check_refused(&csr, SCIO_CHECK_FULL, SCIO_ECORRUPT, "indices[2] is 4294967298 in row 1");
}

TEST(facts_tell_order_and_duplicates_for_every_dtype)
{
    static const struct {
        int64_t indices[6];
        bool is_sorted, has_duplicates;
    } cases[] = {
        {{0, 4, 2, 1, 2, 3}, true, false},
        {{4, 0, 2, 1, 2, 3}, false, false}, /* row 0 unsorted */
        {{0, 4, 2, 1, 1, 3}, true, true},   /* neighbours */
        {{0, 4, 2, 3, 1, 3}, false, true},  /* apart, in an unsorted row */
        {{4, 4, 2, 3, 2, 1}, false, true},
        {{2, 4, 4, 4, 3, 2}, false, false}, /* equal ones in different rows */
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < N_INDEX_DTYPES; k++) {
            for (int is_wide = 0; is_wide < 2; is_wide++) {
                uint64_t room[6];
                scio_csr_view csr = good();
                scio_csr_facts facts = {!cases[i].is_sorted, !cases[i].has_duplicates};

                make_indices(index_dtypes[k], cases[i].indices, 6, room);
                csr.indices = room;
                csr.index_dtype = index_dtypes[k];
                csr.n_cols = is_wide ? INT64_C(1) << 60 : 5; /* marks for so many do not fit */
                CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
                CHECK(facts.is_sorted == cases[i].is_sorted);
                CHECK(facts.has_duplicates == cases[i].has_duplicates);
            }
        }
    }
}

TEST(long_unsorted_rows_are_searched_by_both_methods)
{
    enum { LONG = 1777 };
    static int64_t indices[2 * LONG];
    const int64_t indptr[] = {0, LONG, 2 * LONG};

    for (int is_wide = 0; is_wide < 2; is_wide++) {
        for (int has_twin = 0; has_twin < 2; has_twin++) {
            const scio_csr_view csr = {2,        is_wide ? INT64_C(1) << 50 : 100000,
                                       2 * LONG, indptr,
                                       indices,  SCIO_I64,
                                       NULL,     SCIO_F32};
            scio_csr_facts facts = {true, !has_twin};

            for (int64_t i = 0; i < LONG; i++)
                indices[i] = indices[LONG + i] = i * 7919 % 99991;
            if (has_twin)
                indices[LONG + 1500] = indices[LONG + 3];
            CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
            CHECK(!facts.is_sorted && facts.has_duplicates == has_twin);
        }
    }
}

/* Several blocks of 4,096 rows: the position that is named is the first, whichever thread was
 * first. */
enum { N_ROWS = 20000, N_ROW = 250, BLOCK = 4096 * N_ROW };

static scio_csr_view
large(int64_t *indptr, int64_t *indices)
{
    for (int64_t r = 0; r <= N_ROWS; r++)
        indptr[r] = r * N_ROW;
    for (int64_t i = 0; i < (int64_t)N_ROWS * N_ROW; i++)
        indices[i] = i % N_ROW * 10;
    return (scio_csr_view){N_ROWS, 10 * N_ROW, (int64_t)N_ROWS * N_ROW, indptr, indices, SCIO_I64,
                           NULL,   SCIO_F32};
}

static int64_t large_indptr[N_ROWS + 1];
static int64_t large_indices[N_ROWS * N_ROW]; /* wide, so that a block takes its time */

TEST(the_first_of_many_bad_positions_is_named_with_any_number_of_threads)
{
    const size_t n_threads[] = {1, 2, 7};
    const scio_csr_view csr = large(large_indptr, large_indices);
    scio_pool *pool = NULL;

    CHECK(scio_pool_shared(&pool, NULL) == SCIO_OK);
    /* block 1 finds its own early, while block 2 is on the way to one at its end */
    large_indices[BLOCK + BLOCK / 4] = 2500;
    large_indices[3 * BLOCK - 1] = 2501;
    large_indices[4 * BLOCK] = 2502;
    for (size_t k = 0; k < 3; k++) {
        CHECK(scio_pool_resize(pool, n_threads[k], NULL) == SCIO_OK);
        for (int round = 0; round < 30; round++) {
            scio_csr_facts facts;
            scio_error err = SCIO_ERROR_INIT;

            CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, &err) == SCIO_ECORRUPT);
            CHECK_STR(err.message, "indices[1280000] is 2500 in row 5120, not in [0, 2500)");
        }
    }
}

TEST(facts_of_many_blocks_are_joined)
{
    const scio_csr_view csr = large(large_indptr, large_indices);
    scio_csr_facts facts = {false, true};

    CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(facts.is_sorted && !facts.has_duplicates);
    large_indices[4 * BLOCK] = 2499; /* the first of a row, and its last is 2490 */
    CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(!facts.is_sorted && !facts.has_duplicates);
    large_indices[BLOCK + 7] = 60; /* as its left neighbour */
    CHECK(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    CHECK(!facts.is_sorted && facts.has_duplicates);
}

TEST(indices_alone_are_checked_with_their_place_in_the_whole)
{
    const uint8_t indices[] = {3, 0, 9, 10};
    const double no_integers[] = {1.0};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_indices_validate(indices, SCIO_U8, 4, 11, 100, &err) == SCIO_OK);
    CHECK(scio_indices_validate(indices, SCIO_U8, 3, 10, 100, &err) == SCIO_OK);
    CHECK(scio_indices_validate(NULL, SCIO_U8, 0, 0, 100, &err) == SCIO_OK);
    CHECK(scio_indices_validate(indices, SCIO_U8, 4, 10, 100, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[103] is 10, not in [0, 10)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_indices_validate(indices, SCIO_U8, 4, 0, 0, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[0] is 3, not in [0, 0)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_indices_validate(no_integers, SCIO_F64, 1, 5, 0, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices are float64, expected integers");
}

TEST(the_first_bad_index_of_a_long_stretch_is_named)
{
    enum { LONG = 20000 };
    static int32_t indices[LONG];

    for (int bad = 0; bad < LONG; bad += 999) {
        char message[40];
        scio_error err = SCIO_ERROR_INIT;

        memset(indices, 0, sizeof indices);
        indices[bad] = -3;
        indices[LONG - 1] = 7;
        (void)snprintf(message, sizeof message, "indices[%d] is -3,", bad);
        CHECK(scio_indices_validate(indices, SCIO_I32, LONG, 7, 0, &err) == SCIO_ECORRUPT);
        CHECK_STR(err.message, message);
    }
}

TEST(every_allocation_of_the_full_check_may_fail)
{
    const int64_t unsorted[6] = {4, 0, 2, 1, 2, 3};
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    scio_csr_view csr = good();
    scio_status status;
    size_t k = 0;

    csr.indices = unsorted;
    csr.index_dtype = SCIO_I64;
    do {
        scio_csr_facts facts = {true, true};

        scio_mem_fail_at(k++);
        status = scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && facts.is_sorted));
    } while (status != SCIO_OK);
    CHECK(k > 2);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}
