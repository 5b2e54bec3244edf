#include "preprocess/poisson.h"

#include "base/pool.h"
#include "kernels/exp_f64.h"

#define N_FRACTIONS_PER_ITEM 16

typedef struct absence {
    const double *fractions, *totals, *n_cells;
    size_t n_fractions, n_totals;
    double n_all_cells;
    double *out;
} absence;

static scio_status
sum_absence(void *context, size_t i_item, size_t slot, scio_error *err)
{
    const absence *const a = context;
    const size_t begin = i_item * N_FRACTIONS_PER_ITEM;

    (void)slot;
    (void)err;
    for (size_t g = begin; g < begin + N_FRACTIONS_PER_ITEM && g < a->n_fractions; g++) {
        double sum = 0;

        for (size_t t = 0; t < a->n_totals; t++)
            sum += a->n_cells[t] * scio_exp_f64(-(a->totals[t] * a->fractions[g]));
        a->out[g] = sum / a->n_all_cells;
    }
    return SCIO_OK;
}

scio_status
scio_poisson_absence(const double *fractions, size_t n_fractions, const double *totals,
                     const double *n_cells, size_t n_totals, size_t max_parallel,
                     double *absent_out, const volatile int *cancel, scio_error *err)
{
    absence a = {fractions, totals, n_cells, n_fractions, n_totals, 0, absent_out};
    const size_t n_items = n_fractions / N_FRACTIONS_PER_ITEM + 1;

    for (size_t t = 0; t < n_totals; t++)
        a.n_all_cells += n_cells[t]; /* whole numbers: exact */
    return scio_parallel_for(NULL, max_parallel, n_items, sum_absence, &a, cancel, err);
}
