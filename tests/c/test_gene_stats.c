/* One pass of statistics against sums taken value by value, and the same bits for any threads,
 * windows, dtypes and order of columns. */
#include "test.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "preprocess/gene_stats.h"

#include <math.h>

enum { N_ROWS = 9000, N_GENES = 23, N_BATCHES = 3, ROOM = N_ROWS * N_GENES };

/* One matrix in several forms. */
typedef struct matrix {
    double dense[N_ROWS][N_GENES];
    int64_t indptr[N_ROWS + 1];
    int32_t indices[ROOM];
    int64_t wide_indices[ROOM];
    double f64[ROOM];
    float f32[ROOM];
    int32_t i32[ROOM];
    uint16_t u16[ROOM];
    int64_t i64[ROOM];
    int32_t batches[N_ROWS];
} matrix;

static matrix m;

typedef enum content { COUNTS, LARGE, FRACTIONS, MIXED } content;

static double
value_at(content kind, size_t r, size_t g)
{
    const uint64_t x = scio_rng_u64((uint64_t)kind, g, r);

    if (x % 4 != 0)
        return 0;
    switch (kind) {
    case COUNTS:
        return (double)(x / 4 % 20) * (g % 5 == 0 ? 7 : 1);
    case LARGE:
        return (double)(x / 4 % 60000);
    case FRACTIONS:
        return (double)(x / 4 % 1000) / 8;
    default: /* a few rows that are no counts, in the second block */
        return (double)(x / 4 % 20) + (r > 5000 && r % 100 == 0 ? 0.25 : 0);
    }
}

/* Rows in ascending order of genes, every gene with an entry now and then also where it is 0. */
static void
make(content kind)
{
    size_t n = 0;

    for (size_t r = 0; r < N_ROWS; r++) {
        m.batches[r] = (int32_t)(scio_rng_u64(99, 0, r) % (N_BATCHES - 1)) * 2; /* 1 is empty */
        for (size_t g = 0; g < N_GENES; g++) {
            const double x = value_at(kind, r, g);

            m.dense[r][g] = x;
            if (x == 0 && (r + g) % 11 != 0)
                continue;
            m.indices[n] = (int32_t)g;
            m.wide_indices[n] = (int64_t)g;
            m.f64[n] = x;
            m.f32[n] = (float)x;
            m.i32[n] = (int32_t)x;
            m.u16[n] = (uint16_t)x;
            m.i64[n++] = (int64_t)x;
        }
        m.indptr[r + 1] = (int64_t)n;
    }
}

static scio_csr_view
view_of(scio_dtype dtype)
{
    scio_csr_view view = {.n_rows = N_ROWS,
                          .n_cols = N_GENES,
                          .nnz = m.indptr[N_ROWS],
                          .indptr = m.indptr,
                          .indices = m.indices,
                          .index_dtype = SCIO_I32,
                          .data_dtype = dtype};

    view.data = dtype == SCIO_F32   ? (const void *)m.f32
                : dtype == SCIO_F64 ? (const void *)m.f64
                : dtype == SCIO_I32 ? (const void *)m.i32
                : dtype == SCIO_U16 ? (const void *)m.u16
                                    : (const void *)m.i64;
    return view;
}

/* All that comes out of one pass. */
typedef struct results {
    scio_stats_facts facts;
    int64_t n_exact[N_BATCHES], n_inexact[N_BATCHES], n_positive[N_BATCHES * N_GENES];
    double maximum[N_BATCHES * N_GENES];
    uint64_t sums[N_BATCHES * N_GENES * 2], squares[N_BATCHES * N_GENES * 2];
    double doubles[11][N_BATCHES * N_GENES]; /* those that were there, else 0 */
    double totals[N_ROWS], tops[N_ROWS * 2], flags[N_ROWS * 3];
    int64_t n_detected[N_ROWS];
    int64_t n_values, indptr[N_BATCHES * N_GENES + 1];
    int64_t counts[65536];
    uint64_t values[65536];
} results;

static const int64_t tops[] = {2, 20};
static uint64_t flags[N_GENES];

static scio_stats_spec
spec_of(int64_t n_batches)
{
    for (size_t g = 0; g < N_GENES; g++)
        flags[g] = (g % 3 == 0 ? 1u : 0u) | (g < 9 ? 2u : 0u); /* the third set is empty */
    return (scio_stats_spec){.n_genes = N_GENES,
                             .n_batches = n_batches,
                             .wants_scaled = true,
                             .target_sum = 1e4,
                             .factor = 1,
                             .flags = flags,
                             .n_flags = 3,
                             .tops = tops,
                             .n_tops = 2,
                             .max_value_nbytes = 1 << 20};
}

static void
copy_doubles(double *to, const void *from, size_t n)
{
    if (from != NULL)
        memcpy(to, from, n * sizeof *to);
}

static scio_status
collect(const scio_gene_stats *stats, size_t n_batches, results *out, scio_error *err)
{
    const size_t n = n_batches * N_GENES;
    scio_stats_result r;

    scio_gene_stats_result(stats, &r);
    out->facts = *scio_gene_stats_facts(stats);
    memcpy(out->n_exact, r.n_exact, n_batches * sizeof *r.n_exact);
    memcpy(out->n_inexact, r.n_inexact, n_batches * sizeof *r.n_inexact);
    copy_doubles(out->doubles[0], r.mean, n);
    copy_doubles(out->doubles[1], r.m2, n);
    copy_doubles(out->doubles[2], r.sum, n);
    copy_doubles(out->doubles[3], r.maximum, n);
    copy_doubles(out->doubles[4], r.n_nonzero, n);
    copy_doubles(out->doubles[5], r.n_positive, n);
    copy_doubles(out->doubles[6], r.scaled_mean, n);
    copy_doubles(out->doubles[7], r.scaled_m2, n);
    copy_doubles(out->doubles[8], r.log_mean, n);
    copy_doubles(out->doubles[9], r.log_m2, n);
    scio_gene_stats_exact(stats, out->n_positive, out->maximum, out->sums, out->squares);
    out->n_values = scio_gene_stats_n_values(stats);
    if (out->n_values < 0 || out->n_values > 65536)
        return SCIO_OK;
    return scio_gene_stats_values(stats, out->indptr, out->values, out->counts, err);
}

/* The whole matrix in windows of so many rows. */
static scio_status
run(const scio_csr_view *view, const scio_stats_spec *spec, int64_t window, size_t n_threads,
    results *out, scio_error *err)
{
    scio_gene_stats *stats = NULL;
    const bool has_batches = spec->n_batches > 1;
    scio_status status;

    memset(out, 0, sizeof *out);
    status = scio_gene_stats_new(spec, &stats, err);
    for (int64_t start = 0; status == SCIO_OK && start < view->n_rows; start += window) {
        const int64_t left = view->n_rows - start;
        const scio_stats_cells cells = {out->totals + start, out->n_detected + start,
                                        out->tops + start * 2, out->flags + start * 3};
        scio_csr_view part = *view;

        part.n_rows = left < window ? left : window;
        part.indptr = view->indptr + start; /* positions need not begin with 0 here */
        status = scio_gene_stats_add(stats, &part, has_batches ? m.batches + start : NULL, &cells,
                                     n_threads, NULL, err);
    }
    if (status == SCIO_OK)
        status = collect(stats, (size_t)spec->n_batches, out, err);
    scio_gene_stats_free(stats);
    return status;
}

static results *
new_results(void)
{
    results *out = NULL;

    if (scio_mem_zalloc(1, sizeof *out, &out, NULL) != SCIO_OK)
        abort();
    return out;
}

static bool
is_near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b) + 1e-14;
}

/* --- against a plain loop --- */

static void
check_gene(const results *r, size_t batch, size_t g, bool has_batches)
{
    const size_t p = batch * N_GENES + g;
    double s = 0, q = 0, scaled = 0, squares = 0, log_sum = 0, log_squares = 0, most = 0, n = 0;
    int64_t n_positive = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < N_ROWS; i++) {
            const double x = m.dense[i][g], total = r->totals[i];
            const double y = total == 0 ? 0 : x / total;
            const double l = log1p((double)(float)(y * 1e4));

            if (has_batches && (size_t)m.batches[i] != batch)
                continue;
            if (pass == 0) {
                n++;
                s += x;
                q += x * x;
                n_positive += x > 0;
                most = x > most ? x : most;
                scaled += y;
                log_sum += l;
            } else {
                squares += (y - scaled / n) * (y - scaled / n);
                log_squares += (l - log_sum / n) * (l - log_sum / n);
            }
        }
    }
    n = n == 0 ? 1 : n;
    if (r->facts.n_fractional == 0) {
        CHECK(r->n_positive[p] == n_positive && r->maximum[p] == most);
        CHECK((double)r->sums[2 * p] == s && (double)r->squares[2 * p] == q);
    }
    CHECK(is_near(r->doubles[6][p], scaled / n, 1e-12) &&
          is_near(r->doubles[7][p], squares, 1e-10));
    CHECK(is_near(r->doubles[8][p], log_sum / n, 1e-6));
    CHECK(is_near(r->doubles[9][p], log_squares, 1e-5));
}

static void
check_values(const results *r, size_t n_batches)
{
    for (size_t batch = 0; batch < n_batches; batch++) {
        for (size_t g = 0; g < N_GENES; g++) {
            const size_t p = batch * N_GENES + g;
            int64_t n_all = 0;

            for (int64_t i = r->indptr[p]; i < r->indptr[p + 1]; i++) {
                int64_t n = 0;

                for (size_t row = 0; row < N_ROWS; row++)
                    n += m.dense[row][g] == (double)r->values[i] &&
                         (n_batches == 1 || (size_t)m.batches[row] == batch);
                CHECK(n == r->counts[i]);
                CHECK(i == r->indptr[p] || r->values[i] > r->values[i - 1]);
                n_all += n;
            }
            CHECK(n_all == r->n_positive[p]);
        }
    }
}

static void
check_cells(const results *r)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        double total = 0, flag0 = 0, flag1 = 0, first = 0, second = 0;
        int64_t n = 0;

        for (size_t g = 0; g < N_GENES; g++) {
            const double x = m.dense[i][g];

            total += x;
            n += x != 0;
            flag0 += g % 3 == 0 ? x : 0;
            flag1 += g < 9 ? x : 0;
            if (x > first) {
                second = first;
                first = x;
            } else if (x > second) {
                second = x;
            }
        }
        CHECK(is_near(r->totals[i], total, 1e-14) && r->n_detected[i] == n);
        CHECK(is_near(r->flags[3 * i], flag0, 1e-14) && is_near(r->flags[3 * i + 1], flag1, 1e-14));
        CHECK(r->flags[3 * i + 2] == 0 && r->tops[2 * i] == first + second);
    }
}

TEST(counts_are_what_a_plain_loop_gives)
{
    results *const r = new_results();

    make(COUNTS);
    for (int64_t n_batches = 1; n_batches <= N_BATCHES; n_batches += 2) {
        const scio_stats_spec spec = spec_of(n_batches);
        const scio_csr_view view = view_of(SCIO_F32);
        scio_error err = SCIO_ERROR_INIT;

        CHECK(run(&view, &spec, N_ROWS, 2, r, &err) == SCIO_OK);
        CHECK_CLEAR(err.message);
        CHECK(r->facts.n_rows == N_ROWS && r->facts.n_fractional == 0 && r->n_values > 0);
        CHECK(r->n_exact[0] + r->n_exact[1] + r->n_exact[2] == N_ROWS);
        for (size_t b = 0; b < (size_t)n_batches; b++)
            for (size_t g = 0; g < N_GENES; g++)
                check_gene(r, b, g, n_batches > 1);
        check_values(r, (size_t)n_batches);
        check_cells(r);
    }
    scio_mem_free(r);
}

TEST(fractions_are_what_a_plain_loop_gives)
{
    results *const r = new_results();
    const scio_stats_spec spec = spec_of(1);

    for (content kind = FRACTIONS; kind <= MIXED; kind++) {
        scio_error err = SCIO_ERROR_INIT;

        make(kind);
        const scio_csr_view view = view_of(SCIO_F64);
        CHECK(run(&view, &spec, N_ROWS, 2, r, &err) == SCIO_OK);
        CHECK(r->facts.n_fractional > 0 && r->n_values == -1);
        CHECK(r->n_exact[0] + r->n_inexact[0] == N_ROWS);
        CHECK(kind == FRACTIONS || r->n_inexact[0] == 39); /* 5100, 5200, … 8900 */
        check_cells(r);
        for (size_t g = 0; g < N_GENES; g++)
            check_gene(r, 0, g, false);
        for (size_t g = 0; g < N_GENES; g++) {
            double s = 0, squares = 0, most = 0, mean, m2, variance;

            for (size_t i = 0; i < N_ROWS; i++)
                s += m.dense[i][g];
            for (size_t i = 0; i < N_ROWS; i++) {
                squares += (m.dense[i][g] - s / N_ROWS) * (m.dense[i][g] - s / N_ROWS);
                most = m.dense[i][g] > most ? m.dense[i][g] : most;
            }
            const double exact = scio_u128_to_double(r->sums[2 * g]);
            CHECK(is_near(r->doubles[2][g] + exact, s, 1e-12));
            CHECK(fmax(r->doubles[3][g], r->maximum[g]) == most);
            scio_exact_moments((uint64_t)r->n_exact[0], r->sums[2 * g], r->squares[2 * g], &mean,
                               &m2, &variance);
            const scio_spread all = scio_spread_join(
                (scio_spread){(double)r->n_exact[0], mean, m2},
                (scio_spread){(double)r->n_inexact[0], r->doubles[0][g], r->doubles[1][g]});
            CHECK(is_near(all.mean, s / N_ROWS, 1e-12) && is_near(all.m2, squares, 1e-10));
        }
    }
    scio_mem_free(r);
}

/* --- the same bits --- */

TEST(bits_do_not_depend_on_threads_windows_or_dtype)
{
    static const scio_dtype dtypes[] = {SCIO_F32, SCIO_F64, SCIO_I32, SCIO_U16, SCIO_I64};
    static const size_t threads[] = {0, 1, 2, 7, 16};
    static const int64_t windows[] = {N_ROWS, 4096, 8192};
    results *const expected = new_results(), *const got = new_results();
    scio_pool *pool;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_pool_shared(&pool, &err) == SCIO_OK);
    const size_t n_before = scio_pool_n_threads(pool);
    CHECK(scio_pool_resize(pool, 16, &err) == SCIO_OK);
    for (content kind = COUNTS; kind <= MIXED; kind++) {
        const scio_stats_spec spec = spec_of(N_BATCHES);

        make(kind);
        for (size_t i = 0; i < 15; i += kind == COUNTS ? 1 : 4) {
            const scio_dtype dtype = kind >= FRACTIONS ? dtypes[i % 2] : dtypes[i % 5];
            const scio_csr_view view = view_of(dtype);

            CHECK(run(&view, &spec, windows[i % 3], threads[i / 3], i == 0 ? expected : got,
                      &err) == SCIO_OK);
            CHECK_CLEAR(err.message);
            if (i > 0)
                CHECK(memcmp(expected, got, sizeof *got) == 0);
        }
    }
    CHECK(scio_pool_resize(pool, n_before, &err) == SCIO_OK);
    scio_mem_free(expected);
    scio_mem_free(got);
}

TEST(unsorted_rows_and_duplicates_give_the_same_bits)
{
    results *const expected = new_results(), *const got = new_results();
    static int32_t indices[2 * ROOM];
    static double data[2 * ROOM];
    static int64_t indptr[N_ROWS + 1];
    const scio_stats_spec spec = spec_of(1);
    scio_error err = SCIO_ERROR_INIT;
    size_t n = 0;

    make(MIXED);
    scio_csr_view view = view_of(SCIO_F64);
    CHECK(run(&view, &spec, N_ROWS, 2, expected, &err) == SCIO_OK);
    for (size_t r = 0; r < N_ROWS; r++) { /* backwards, halves apart */
        for (int64_t i = m.indptr[r + 1]; i-- > m.indptr[r];) {
            indices[n] = m.indices[i];
            data[n++] = m.f64[i] / 2;
        }
        for (int64_t i = m.indptr[r]; i < m.indptr[r + 1]; i++) {
            indices[n] = m.indices[i];
            data[n++] = m.f64[i] / 2;
        }
        indptr[r + 1] = (int64_t)n;
    }
    view.indices = indices;
    view.data = data;
    view.indptr = indptr;
    view.nnz = (int64_t)n;
    CHECK(run(&view, &spec, 4096, 2, got, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    CHECK(memcmp(expected, got, sizeof *got) == 0);

    view = view_of(SCIO_F64);
    view.indices = m.wide_indices;
    view.index_dtype = SCIO_I64;
    CHECK(run(&view, &spec, N_ROWS, 2, got, &err) == SCIO_OK);
    CHECK(memcmp(expected, got, sizeof *got) == 0);
    scio_mem_free(expected);
    scio_mem_free(got);
}

/* --- values that are given up --- */

TEST(sums_are_the_same_when_values_are_given_up)
{
    results *const expected = new_results(), *const got = new_results();
    scio_stats_spec spec = spec_of(N_BATCHES);
    scio_error err = SCIO_ERROR_INIT;

    make(LARGE);
    const scio_csr_view view = view_of(SCIO_F32);
    spec.max_value_nbytes = (size_t)64 << 20;
    CHECK(run(&view, &spec, 4096, 2, expected, &err) == SCIO_OK);
    CHECK(expected->n_values > 0);
    spec.max_value_nbytes = 16 * 1000;
    for (size_t n_threads = 1; n_threads < 8; n_threads += 3) {
        CHECK(run(&view, &spec, n_threads == 1 ? N_ROWS : 4096, n_threads, got, &err) == SCIO_OK);
        CHECK(got->n_values == -1);
        CHECK(memcmp(expected->sums, got->sums, sizeof got->sums) == 0);
        CHECK(memcmp(expected->squares, got->squares, sizeof got->squares) == 0);
        CHECK(memcmp(expected->n_positive, got->n_positive, sizeof got->n_positive) == 0);
        CHECK(memcmp(expected->maximum, got->maximum, sizeof got->maximum) == 0);
    }
    scio_mem_free(expected);
    scio_mem_free(got);
}

TEST(values_beyond_32_bits_are_summed_exactly)
{
    static const int64_t indptr[] = {0, 2, 4, 5};
    static const int32_t indices[] = {0, 1, 0, 1, 0};
    static const int64_t data[] = {(INT64_C(1) << 48) - 1, 3, (INT64_C(1) << 47) + 1, 20,
                                   INT64_C(1) << 33};
    const scio_csr_view view = {.n_rows = 3,
                                .n_cols = 2,
                                .nnz = 5,
                                .indptr = indptr,
                                .indices = indices,
                                .index_dtype = SCIO_I32,
                                .data = data,
                                .data_dtype = SCIO_I64};
    const scio_stats_spec spec = {.n_genes = 2, .n_batches = 1, .max_value_nbytes = 1 << 20};
    int64_t n_positive[2];
    double maximum[2];
    uint64_t sums[4], squares[4];
    scio_gene_stats *stats = NULL;
    scio_u128 q = 0;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_OK);
    CHECK(scio_gene_stats_add(stats, &view, NULL, NULL, 2, NULL, &err) == SCIO_OK);
    scio_gene_stats_exact(stats, n_positive, maximum, sums, squares);
    for (size_t i = 0; i < 5; i += 2)
        q += (scio_u128)(uint64_t)data[i] * (uint64_t)data[i];
    CHECK(sums[0] == (uint64_t)(data[0] + data[2] + data[4]) && sums[1] == 0);
    CHECK(squares[0] == (uint64_t)q && squares[1] == (uint64_t)(q >> 64) && squares[1] != 0);
    CHECK(sums[2] == 23 && squares[2] == 409 && n_positive[0] == 3 && n_positive[1] == 2);
    CHECK(maximum[0] == 0x1p48 - 1 && maximum[1] == 20);
    CHECK(scio_gene_stats_n_values(stats) == -1);
    scio_gene_stats_free(stats);
}

/* --- what is noted, what is refused --- */

static scio_status
add_rows(const double *data, const int32_t *indices, const int64_t *indptr, int64_t n_rows,
         scio_stats_facts *facts, scio_error *err)
{
    const scio_stats_spec spec = {.n_genes = 4, .n_batches = 1, .max_value_nbytes = 1 << 20};
    const scio_csr_view view = {.n_rows = n_rows,
                                .n_cols = 4,
                                .nnz = indptr[n_rows],
                                .indptr = indptr,
                                .indices = indices,
                                .index_dtype = SCIO_I32,
                                .data = data,
                                .data_dtype = SCIO_F64};
    scio_gene_stats *stats = NULL;
    scio_status status;

    SCIO_TRY(scio_gene_stats_new(&spec, &stats, err));
    status = scio_gene_stats_add(stats, &view, NULL, NULL, 2, NULL, err);
    *facts = *scio_gene_stats_facts(stats);
    scio_gene_stats_free(stats);
    return status;
}

TEST(the_first_value_of_a_kind_is_named)
{
    static const int64_t indptr[] = {0, 2, 4, 7};
    static const int32_t indices[] = {0, 3, 1, 2, 0, 1, 3};
    static const double data[] = {1, 2, -3, 2.5, -0.5, NAN, -HUGE_VAL};
    scio_stats_facts facts;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(add_rows(data, indices, indptr, 3, &facts, &err) == SCIO_OK);
    CHECK(facts.n_nonzero == 7 && facts.n_fractional == 2 && facts.n_not_finite == 2);
    CHECK(facts.negative.row == 1 && facts.negative.gene == 1 && facts.negative.value == -3);
    CHECK(facts.fractional.row == 1 && facts.fractional.gene == 2);
    CHECK(facts.not_finite.row == 2 && facts.not_finite.gene == 1);
    CHECK(facts.n_negative == 3); /* -inf too */
}

TEST(bad_input_is_refused)
{
    static const int64_t indptr[] = {0, 1, 2};
    static const int32_t indices[] = {3, 4};
    static const double data[] = {1, 2};
    const int64_t bad_tops[] = {2, 5};
    scio_stats_spec spec = {.n_genes = 4, .n_batches = 1};
    scio_gene_stats *stats = NULL;
    scio_stats_facts facts;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(add_rows(data, indices, indptr, 2, &facts, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "indices[1] is 4");
    err = (scio_error)SCIO_ERROR_INIT;
    spec.tops = bad_tops;
    spec.n_tops = 2;
    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "top 5 is not in [2, 4]");
    err = (scio_error)SCIO_ERROR_INIT;
    spec.n_tops = 0;
    spec.n_batches = INT64_C(1) << 31;
    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_EUNSUPPORTED);
    CHECK(stats == NULL);
}

TEST(rows_come_in_blocks_and_batches_in_range)
{
    const scio_stats_spec spec = {.n_genes = N_GENES, .n_batches = 2, .max_value_nbytes = 1 << 20};
    scio_gene_stats *stats = NULL;
    scio_error err = SCIO_ERROR_INIT;

    make(COUNTS);
    scio_csr_view view = view_of(SCIO_F32);
    view.n_rows = 100;
    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_OK);
    CHECK(scio_gene_stats_add(stats, &view, NULL, NULL, 2, NULL, &err) == SCIO_OK);
    CHECK(scio_gene_stats_add(stats, &view, NULL, NULL, 2, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "rows from 100 on");
    scio_gene_stats_free(stats);
    stats = NULL;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_OK);
    CHECK(scio_gene_stats_add(stats, &view, m.batches, NULL, 2, NULL, &err) == SCIO_ERANGE);
    CHECK_STR(err.message, "is 2, not in [0, 2)");
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_gene_stats_add(stats, &view, NULL, NULL, 2, NULL, &err) == SCIO_EBUG);
    scio_gene_stats_free(stats);
}

TEST(a_cancelled_pass_stops)
{
    const scio_stats_spec spec = {.n_genes = N_GENES, .n_batches = 1, .max_value_nbytes = 1 << 20};
    const volatile int cancel = 1;
    scio_gene_stats *stats = NULL;
    scio_error err = SCIO_ERROR_INIT;

    make(COUNTS);
    const scio_csr_view view = view_of(SCIO_F32);
    CHECK(scio_gene_stats_new(&spec, &stats, &err) == SCIO_OK);
    CHECK(scio_gene_stats_add(stats, &view, NULL, NULL, 2, &cancel, &err) == SCIO_ECANCEL);
    scio_gene_stats_free(stats);
}

TEST(every_failing_allocation_is_reported)
{
    const scio_stats_spec spec = spec_of(N_BATCHES);
    results *const r = new_results();
    size_t k = 0;

    make(MIXED);
    scio_csr_view view = view_of(SCIO_F64);
    view.n_rows = 6000;
    for (;; k++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_status status;

        scio_mem_fail_at(k);
        status = run(&view, &spec, 4096, 0, r, &err);
        scio_mem_fail_at(SIZE_MAX);
        if (status == SCIO_OK)
            break;
        CHECK(status == SCIO_ENOMEM);
        if (test_has_failed)
            break;
    }
    CHECK(k > 30);
    scio_mem_free(r);
}
