/* One table of kernels per CPU level, from one template. */
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Bits of doubles that the logarithm takes apart. */
#define LOG_ONE_BITS UINT64_C(0x3FF0000000000000)       /* 1.0 */
#define LOG_SQRT_HALF_BITS UINT64_C(0x3FE6A09E667F3BCD) /* sqrt(1/2) */
#define LOG_FRACTION_BITS UINT64_C(0x000FFFFFFFFFFFFF)
#define LOG_TWO_52_BITS UINT64_C(0x4330000000000000) /* 2^52: an integer below it, or-ed in, is added */
#define LOG_LN2 0x1.62e42fefa39efp-1
#define LOG_INFINITY ((double)INFINITY)
#define LOG_NAN ((double)NAN)

#define KERNEL_NAME(x) x##_base
#define KERNEL_TARGET
#include "kernels/kernels_template.h"

#if defined(__x86_64__) && defined(__GNUC__)
/* Every x86 server since 2013 and desktop since 2015: loops run over 8 floats at a time. */
#define KERNEL_NAME(x) x##_avx2
#define KERNEL_TARGET __attribute__((target("avx2")))
#include "kernels/kernels_template.h"

/* Servers since 2017: 16 floats at a time, and 64-bit integers convert. */
#define KERNEL_NAME(x) x##_avx512
#define KERNEL_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#include "kernels/kernels_template.h"
#endif

const scio_kernels_table *
scio_kernels_at(scio_cpu_level level)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (level == SCIO_CPU_AVX512)
        return &table_avx512;
    if (level == SCIO_CPU_AVX2)
        return &table_avx2;
#endif
    (void)level;
    return &table_base;
}

const scio_kernels_table *
scio_kernels(void)
{
    return scio_kernels_at(scio_cpu());
}
