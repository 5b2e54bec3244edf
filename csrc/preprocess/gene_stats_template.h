/* The loops over one row, for one type of values: included by gene_stats_row.c once per type with
 * STATS_NAME(x), STATS_TYPE, STATS_SUM (type of an exact sum of a row) and STATS_IS_COUNT(v)
 * defined. STATS_IS_COUNT is true for integers in [0, 2^31), or fewer of them: true must be exact.
 */

/* Whether all are counts; their sum then, which is exact in whatever order it is taken, and how
 * many are not 0. */
static bool
STATS_NAME(classify)(const void *values, size_t n_items, double *sum_out, size_t *n_nonzero_out)
{
    const STATS_TYPE *const v = values;
    STATS_SUM sums[8] = {0};
    size_t n_nonzero = 0, i = 0;
    unsigned n_bad = 0;

    for (; i + 8 <= n_items; i += 8) {
        unsigned n_set = 0;

        for (size_t j = 0; j < 8; j++) {
            n_bad |= (unsigned)!STATS_IS_COUNT(v[i + j]);
            n_set += (unsigned)(v[i + j] != 0);
            sums[j] += (STATS_SUM)v[i + j];
        }
        n_nonzero += n_set;
    }
    for (; i < n_items; i++) {
        n_bad |= (unsigned)!STATS_IS_COUNT(v[i]);
        n_nonzero += v[i] != 0;
        sums[0] += (STATS_SUM)v[i];
    }
    for (size_t j = 1; j < 8; j++)
        sums[0] += sums[j];
    *sum_out = (double)sums[0];
    *n_nonzero_out = n_nonzero;
    return n_bad == 0;
}

/* bins[gene][value] += 1; positions of the values that have no bin go to `large`. */
static size_t
STATS_NAME(count)(const void *values, const int32_t *genes, size_t n_items, uint16_t *bins,
                  uint32_t *large)
{
    const STATS_TYPE *const v = values;
    size_t n_large = 0;

    for (size_t i = 0; i < n_items; i++) {
        const uint32_t x = (uint32_t)(int32_t)v[i];

        if (SCIO_LIKELY(x < SCIO_STATS_BINS))
            bins[(size_t)(uint32_t)genes[i] * SCIO_STATS_BINS + x]++;
        else
            large[n_large++] = (uint32_t)i;
    }
    return n_large;
}

static void
STATS_NAME(to_double)(const void *values, size_t n_items, double *out)
{
    const STATS_TYPE *const v = values;

    for (size_t i = 0; i < n_items; i++)
        out[i] = (double)v[i];
}

static void
STATS_NAME(divide)(const void *values, size_t n_items, double divisor, double *out)
{
    const STATS_TYPE *const v = values;

    for (size_t i = 0; i < n_items; i++)
        out[i] = (double)v[i] / divisor;
}

static void
STATS_NAME(scale)(const void *values, size_t n_items, double factor, float *out)
{
    const STATS_TYPE *const v = values;

    for (size_t i = 0; i < n_items; i++)
        out[i] = (float)((double)v[i] * factor);
}
