/* Counts by value: sorted out, joined, through every failure of memory. */
#include "test.h"

#include "base/mem.h"
#include "preprocess/value_counts.h"

enum { N_PLACES = 5, N_MOST = 4000 };

static scio_status
fill(scio_value_counts *counts, uint64_t first, uint64_t n_values, scio_error *err)
{
    for (uint64_t place = 0; place < N_PLACES; place += 2) /* odd places stay empty */
        for (uint64_t v = 0; v < n_values; v++)
            SCIO_TRY(scio_value_counts_add(counts, scio_value_key(place, first + v * 7), place + 1,
                                           err));
    return SCIO_OK;
}

TEST(values_come_out_sorted_with_their_counts)
{
    static int64_t indptr[N_PLACES + 1], n[N_MOST];
    static uint64_t values[N_MOST];
    scio_value_counts counts = {0}, more = {0};
    scio_error err = SCIO_ERROR_INIT;

    CHECK(fill(&counts, 16, 500, &err) == SCIO_OK);
    CHECK(fill(&more, 16 + 7 * 250, 500, &err) == SCIO_OK); /* half of them the same */
    CHECK(scio_value_counts_add(&more, scio_value_key(4, UINT32_MAX), 3, &err) == SCIO_OK);
    for (size_t i = 0; i < SCIO_VALUE_PARTS; i++)
        CHECK(scio_value_counts_join(&counts, &more, i, &err) == SCIO_OK);
    CHECK(scio_value_counts_n_used(&more) == 0);
    CHECK(scio_value_counts_n_used(&counts) == 3 * 750 + 1);
    CHECK(scio_value_counts_sorted(&counts, N_PLACES, indptr, values, n, &err) == SCIO_OK);
    CHECK(indptr[0] == 0 && indptr[1] == 750 && indptr[2] == 750 && indptr[3] == 1500);
    CHECK(indptr[4] == 1500 && indptr[5] == 2251);
    for (size_t i = 0; i < 750; i++) {
        CHECK(values[i] == 16 + 7 * i && values[1500 + i] == 16 + 7 * i);
        CHECK(n[i] == (i >= 250 && i < 500 ? 2 : 1));
        CHECK(n[1500 + i] == (i >= 250 && i < 500 ? 10 : 5));
    }
    CHECK(values[2250] == UINT32_MAX && n[2250] == 3);
    scio_value_counts_clear(&counts);
    scio_value_counts_clear(&more);
    CHECK(scio_value_counts_n_used(&counts) == 0);
}

static scio_status
fill_and_sort(scio_error *err)
{
    static int64_t indptr[N_PLACES + 1], n[N_MOST];
    static uint64_t values[N_MOST];
    scio_value_counts counts = {0};
    scio_status status = fill(&counts, 16, 300, err);

    if (status == SCIO_OK)
        status = scio_value_counts_sorted(&counts, N_PLACES, indptr, values, n, err);
    scio_value_counts_clear(&counts);
    return status;
}

TEST(every_failing_allocation_is_reported)
{
    size_t k = 0;

    for (;; k++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_status status;

        scio_mem_fail_at(k);
        status = fill_and_sort(&err);
        scio_mem_fail_at(SIZE_MAX);
        if (status == SCIO_OK)
            break;
        CHECK(status == SCIO_ENOMEM);
    }
    CHECK(k > 10);
}
