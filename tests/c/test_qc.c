/* Sums of the largest values against a sort, sums over sets of genes against a plain loop. */
#include "test.h"

#include "base/rng.h"
#include "preprocess/qc.h"

#include <math.h>

enum { MOST = 2000 };

static int
compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x < y) - (x > y);
}

static double
value_of(int kind, uint64_t r)
{
    switch (kind) {
    case 0: /* small counts with zeros */
        return (double)(r % 6);
    case 1: /* a few large ones */
        return r % 50 == 0 ? (double)(256 + r / 50 % 3000) : (double)(r % 255);
    case 2: /* most are large */
        return (double)(r % 100000);
    case 3: /* no counts */
        return (double)(r % 1000003) * 1e-5;
    case 4: /* negative too */
        return (double)(r % 2001) * 0.5 - 500;
    case 5:
        return 3;
    case 6:
        return -1.5;
    default: /* descending stretches are bad for careless pivots */
        return (double)(1000 - r % 1000);
    }
}

static void
check(int kind, size_t n_items, size_t n_genes, uint64_t stream)
{
    static double values[MOST], sorted[2 * MOST], scratch[MOST];
    const bool is_exact = kind < 3 || kind == 5 || kind == 7;
    int64_t tops[] = {
        1, 2, 17, (int64_t)n_genes / 3 + 17, (int64_t)n_genes / 2 + 17, (int64_t)n_genes};
    double sums[6], sum = 0;

    for (size_t i = 0; i < n_items; i++)
        values[i] = sorted[i] = value_of(kind, kind == 7 ? i : scio_rng_u64(4, stream, i));
    for (size_t i = n_items; i < n_genes; i++)
        sorted[i] = 0;
    qsort(sorted, n_genes, sizeof *sorted, compare);
    scio_row_top_sums(values, n_items, n_genes, is_exact, tops, 6, scratch, sums);
    for (size_t j = 0, i = 0; j < 6; j++) {
        for (; i < (size_t)tops[j]; i++)
            sum += sorted[i];
        if (is_exact)
            CHECK(sums[j] == sum);
        else
            CHECK(fabs(sums[j] - sum) <= 1e-9 * (1 + fabs(sum)));
    }
}

TEST(top_sums_are_what_a_sort_gives)
{
    uint64_t stream = 0;

    for (int kind = 0; kind < 8; kind++)
        for (size_t n_items = 0; n_items <= 1500; n_items = n_items * 2 + 1)
            for (size_t more = 0; more <= 300; more += 100)
                check(kind, n_items, n_items + more < 60 ? 60 : n_items + more, stream++);
}

TEST(no_tops_are_no_work)
{
    const double value = 1;
    double scratch, out = -1;

    scio_row_top_sums(&value, 1, 1, true, NULL, 0, &scratch, &out);
    CHECK(out == -1);
}

TEST(flag_sums_go_to_every_set_of_a_gene)
{
    const double values[] = {1, 2, 4, 8.5};
    const int32_t genes[] = {0, 2, 3, 5};
    const uint64_t flags[] = {1, 3, 2, 3 | (uint64_t)1 << 63, 3, 0};
    double sums[64];

    scio_row_flag_sums(values, genes, 4, flags, 64, sums);
    CHECK(sums[0] == 5 && sums[1] == 6 && sums[2] == 0 && sums[63] == 4);
}
