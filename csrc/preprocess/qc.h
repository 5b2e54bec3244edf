/* What quality control asks of one row: sums of its largest values, sums over sets of genes. */
#ifndef SCIO_PREPROCESS_QC_H
#define SCIO_PREPROCESS_QC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* sums_out[j] = sum of the tops[j] largest of the n_genes values of a row, of which n_items are
 * given and the others are 0.  tops[n_tops] ascending, each in [1, n_genes].  is_exact: all values
 * are non-negative integers.  No NaN.  scratch[n_items].  By selection: O(n_items), and for equal
 * input the same bits. */
void scio_row_top_sums(const double *values, size_t n_items, size_t n_genes, bool is_exact,
                       const int64_t *tops, size_t n_tops, double *scratch, double *sums_out);

/* sums_out[j] = sum of the values whose gene has bit j in flags[], in order; j < n_flags <= 64. */
void scio_row_flag_sums(const double *values, const int32_t *genes, size_t n_items,
                        const uint64_t *flags, size_t n_flags, double *sums_out);

#endif
