/* Loess of one variable: local polynomials at a few vertices, cubic Hermite between them.
 *
 * What R's loess(y ~ x, span, degree = 2) computes with its defaults (gaussian family, interpolated
 * surface), written from docs/reference/preprocessing.md; where R stops (no point in a window, too
 * few distinct x) a lower degree or a wider window answers, and the result says so.
 * Method: Cleveland and Grosse, "Computational methods for local regression", Statistics and
 * Computing 1 (1991) 47-62. */
#ifndef SCIO_PREPROCESS_LOESS_H
#define SCIO_PREPROCESS_LOESS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* What happened at a vertex; a point carries the flags of the two vertices around it. */
#define SCIO_LOESS_PSEUDO_INVERSE 1 /* singular values were dropped */
#define SCIO_LOESS_ENLARGED 2       /* the window had no width and grew to the next distinct x */
#define SCIO_LOESS_LOWERED 4        /* fewer than 3 distinct x in the window: degree 1 or 0 */

typedef struct scio_loess_facts {
    size_t n_vertices, n_pseudo_inverses, n_enlarged, n_lowered;
} scio_loess_facts;

/* The greatest |x| and |y|: far from any logarithm, and their squares do not overflow. */
#define SCIO_LOESS_MAX_ABS 1e70

/* fit_out[n_points] = the fit at every x, in the order of the input, which need not be sorted;
 * flags_out[n_points] (NULL allowed) = flags of each point.  A permutation of the points permutes
 * the results, bit for bit.  0 points are fitted by nothing, 1 or more always by finite numbers.
 * EINVAL: span not in (0, 1], a number above SCIO_LOESS_MAX_ABS or not finite.
 * O(n log n + vertices * distinct x in a window) time, O(n) memory. */
SCIO_MUST_CHECK scio_status scio_loess_fit(const double *x, const double *y, size_t n_points,
                                           double span, double *fit_out, uint8_t *flags_out,
                                           scio_loess_facts *facts_out, scio_error *err);

#endif
