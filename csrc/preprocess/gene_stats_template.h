/* The loops over one row, for one type of values: included by gene_stats_row.c once per type with
 * STATS_NAME(x), STATS_TYPE, and (but for float32, which has a kernel) STATS_SUM, the type of an
 * exact sum of a row, and STATS_IS_COUNT(v), true for integers in [0, 2^31) only. */

#ifdef STATS_IS_COUNT
static bool
STATS_NAME(classify)(const void *values, size_t n_items, row_class *out)
{
    const STATS_TYPE *const v = values;
    STATS_SUM sums[8] = {0};
    STATS_TYPE maximum = 0;
    size_t n_nonzero = 0, i = 0;
    unsigned n_bad = 0;

    for (; i + 8 <= n_items; i += 8) {
        unsigned n_set = 0;

        for (size_t j = 0; j < 8; j++) {
            n_bad |= (unsigned)!STATS_IS_COUNT(v[i + j]);
            n_set += (unsigned)(v[i + j] != 0);
            maximum = v[i + j] > maximum ? v[i + j] : maximum;
            sums[j] += (STATS_SUM)v[i + j];
        }
        n_nonzero += n_set;
    }
    for (; i < n_items; i++) {
        n_bad |= (unsigned)!STATS_IS_COUNT(v[i]);
        n_nonzero += v[i] != 0;
        maximum = v[i] > maximum ? v[i] : maximum;
        sums[0] += (STATS_SUM)v[i];
    }
    for (size_t j = 1; j < 8; j++)
        sums[0] += sums[j];
    *out = (row_class){(double)sums[0], (double)maximum, n_nonzero};
    return n_bad == 0;
}
#endif

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

/* The same where every value has one. */
static void
STATS_NAME(count_small)(const void *values, const int32_t *genes, size_t n_items, uint16_t *bins)
{
    const STATS_TYPE *const v = values;

    for (size_t i = 0; i < n_items; i++)
        bins[(size_t)(uint32_t)genes[i] * SCIO_STATS_BINS + (uint32_t)(int32_t)v[i]]++;
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

#undef STATS_NAME
#undef STATS_TYPE
#undef STATS_SUM
#undef STATS_IS_COUNT
