/* Sums per gene over the rows of a matrix, by threads that each have a range of genes.
 *
 * Every gene is met in row order by one thread, so a sum of doubles has the same bits for any
 * number of threads, any ranges and any cutting of the matrix into blocks, and needs no table per
 * thread. Rows must be canonical (columns strictly increase): where a range begins is found by
 * bisection. */
#ifndef SCIO_PREPROCESS_GENE_RANGES_H
#define SCIO_PREPROCESS_GENE_RANGES_H

#include "sparse/csr.h"

/* Values that come at a time, at most; they stay in the first cache. */
#define SCIO_GENE_STRETCH 128

/* Neighbouring values of one row, none of which is 0: genes[n_items] ascending.  Called at the same
 * time from several threads for different genes. */
typedef void (*scio_gene_fn)(void *context, size_t i_row, const int64_t *genes,
                             const double *values, size_t n_items);

/* Calls fn for all values of the matrix that are not 0.  `csr` has int32 or int64 indices, data of
 * any dtype and a checked indptr; ECORRUPT names a column out of its place.  Integers above 2^53
 * are rounded to double. */
SCIO_MUST_CHECK scio_status scio_gene_ranges_visit(const scio_csr_view *csr, size_t max_parallel,
                                                   scio_gene_fn fn, void *context,
                                                   const volatile int *cancel, scio_error *err);

#endif
