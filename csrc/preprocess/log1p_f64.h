/* ln(1 + x) of doubles: within 1 ulp, the same bits on every machine (libm's change by version). */
#ifndef SCIO_PREPROCESS_LOG1P_F64_H
#define SCIO_PREPROCESS_LOG1P_F64_H

#include <stddef.h>

/* -1 gives -inf, below -1 and NaN give NaN, +inf itself, -0 itself. */
double scio_log1p(double x);
/* The same for each of n_items; in == out allowed. */
void scio_log1p_f64(const double *in, double *out, size_t n_items);
/* ln(b) of a base of logarithms, 0 < b < inf, within 2 ulp for b >= 0.5. */
double scio_log_of_base(double base);

#endif
