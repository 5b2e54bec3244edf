/* One table of kernels per CPU level, from one template. */
#include "kernels/kernels.h"

#include "kernels/exp_f64.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
/* KERNEL_INDEPENDENT says what may be done; that builds without optimisation do not do it is no
 * news. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define KERNEL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define KERNEL_INDEPENDENT _Pragma("GCC ivdep")
#else
#define KERNEL_INDEPENDENT
#endif

/* Items between two looks at the evidence of a check: 4 KiB of floats. */
enum { KERNEL_BLOCK = 1024 };

/* Bits of doubles that the logarithm takes apart. */
#define LOG_ONE_BITS UINT64_C(0x3FF0000000000000)       /* 1.0 */
#define LOG_SQRT_HALF_BITS UINT64_C(0x3FE6A09E667F3BCD) /* sqrt(1/2) */
#define LOG_EXPONENT_BITS UINT64_C(0x7FF0000000000000)
#define LOG_TWO_52_BITS                                                                            \
    UINT64_C(0x4330000000000000) /* 2^52: an integer below it, or-ed in, is added */
#define LOG_LN2 0x1.62e42fefa39efp-1
/* and of floats */
#define LOG_F32_SIGN 0x80000000u
#define LOG_F32_INFINITY 0x7F800000u
#define LOG_F32_MINUS_ONE 0xBF800000u
#define LOG_F32_QUIET 0x00400000u /* what tells a quiet NaN from infinity */

#define F32_BITS_BELOW_2_31 0x4EFFFFFFu /* the last float32 before 2^31 */
/* 255.0f and 65535.0f */
#define F32_BITS_255 0x437F0000u
#define F32_BITS_65535 0x477FFF00u

#define KERNEL_NAME(x) x##_base
#define KERNEL_TARGET
#define KERNEL_LANES 0
#include "kernels/kernels_template.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include "kernels/compact_x86.h"

/* Every x86 server since 2013 and desktop since 2015: loops run over 8 floats at a time. */
#define KERNEL_NAME(x) x##_avx2
#define KERNEL_TARGET __attribute__((target("avx2,f16c")))
#define KERNEL_LANES 8
#define KERNEL_ALL_LANES 0xFFu
#include "kernels/kernels_template.h"
#undef KERNEL_ALL_LANES

/* Servers since 2017: 16 floats at a time, and lanes are moved together by one instruction. */
#define KERNEL_NAME(x) x##_avx512
#define KERNEL_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define KERNEL_LANES 16
#define KERNEL_ALL_LANES 0xFFFFu
#include "kernels/kernels_template.h"
#undef KERNEL_ALL_LANES
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
