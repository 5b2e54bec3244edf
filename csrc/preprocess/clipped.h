/* Sums of squares about the mean of values clipped from above, for gene selection by seurat_v3 when
 * there are no value counts: non-integers, or too many different values. */
#ifndef SCIO_PREPROCESS_CLIPPED_H
#define SCIO_PREPROCESS_CLIPPED_H

#include "sparse/csr.h"

/* Adds (min(x, clips[b, g]) - means[b, g])^2 over the values of a block of rows that are not 0 to
 * sums_inout[n_batches * n_genes]; zeros are the caller's.  batches as in residuals.h.  In row
 * order for every gene, see gene_ranges.h. */
SCIO_MUST_CHECK scio_status scio_clipped_sums(const scio_csr_view *csr, const int32_t *batches,
                                              size_t n_batches, const double *means,
                                              const double *clips, size_t max_parallel,
                                              double *sums_inout, const volatile int *cancel,
                                              scio_error *err);

#endif
