/* The share of cells in which a gene would be absent if its counts were Poisson distributed.
 *
 * Model: M3Drop, Andrews and Hemberg, Bioinformatics 35 (2019) 2865, as exact probability. */
#ifndef SCIO_PREPROCESS_POISSON_H
#define SCIO_PREPROCESS_POISSON_H

#include "base/error.h"

#include <stddef.h>

/* absent_out[n_fractions] = sum of m exp(-total * fraction) over the cells' sum of m, in the order
 * of totals[n_totals], m = n_cells[n_totals] cells of that total.  O(n_fractions * n_totals),
 * threaded over fractions. */
SCIO_MUST_CHECK scio_status scio_poisson_absence(const double *fractions, size_t n_fractions,
                                                 const double *totals, const double *n_cells,
                                                 size_t n_totals, size_t max_parallel,
                                                 double *absent_out, const volatile int *cancel,
                                                 scio_error *err);

#endif
