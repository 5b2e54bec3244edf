/* The vector operations of compact_template.h and f16_template.h, by hand: compilers do not make
 * them of loops. */
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

/* --- AVX2: 8 lanes; a table tells which lanes come to the front for each mask --- */

/* Byte r of KEPT_LANES(m) is the r-th set bit of m; the rest is 0. */
#define BIT(m, j) ((uint64_t)(m) >> (j)&1)
#define RANK_1(m) BIT(m, 0)
#define RANK_2(m) (RANK_1(m) + BIT(m, 1))
#define RANK_3(m) (RANK_2(m) + BIT(m, 2))
#define RANK_4(m) (RANK_3(m) + BIT(m, 3))
#define RANK_5(m) (RANK_4(m) + BIT(m, 4))
#define RANK_6(m) (RANK_5(m) + BIT(m, 5))
#define RANK_7(m) (RANK_6(m) + BIT(m, 6))
#define LANE(m, j) (BIT(m, j) * j << 8 * RANK_##j(m))
#define KEPT_LANES(m)                                                                              \
    (LANE(m, 1) | LANE(m, 2) | LANE(m, 3) | LANE(m, 4) | LANE(m, 5) | LANE(m, 6) | LANE(m, 7))
#define FOUR(m) KEPT_LANES(m), KEPT_LANES((m) + 1), KEPT_LANES((m) + 2), KEPT_LANES((m) + 3)
#define SIXTEEN(m) FOUR(m), FOUR((m) + 4), FOUR((m) + 8), FOUR((m) + 12)
#define SIXTY_FOUR(m) SIXTEEN(m), SIXTEEN((m) + 16), SIXTEEN((m) + 32), SIXTEEN((m) + 48)

static const uint64_t kept_lanes[256] = {SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128),
                                         SIXTY_FOUR(192)};

AVX2 static inline void
store_moved_avx2(__m256i ids, __m256i values, unsigned keep, int32_t *ids_out, float *values_out)
{
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)kept_lanes[keep]));

    _mm256_storeu_si256((__m256i *)(void *)ids_out, _mm256_permutevar8x32_epi32(ids, order));
    _mm256_storeu_si256((__m256i *)(void *)values_out, _mm256_permutevar8x32_epi32(values, order));
}

AVX2 static inline void
store_kept_avx2(const int32_t *ids, const float *values, unsigned keep, int32_t *ids_out,
                float *values_out)
{
    store_moved_avx2(_mm256_loadu_si256((const __m256i *)(const void *)ids),
                     _mm256_loadu_si256((const __m256i *)(const void *)values), keep, ids_out,
                     values_out);
}

AVX2 static inline unsigned
mask_nonzero_avx2(const float *values)
{
    const __m256 is_nonzero =
        _mm256_cmp_ps(_mm256_loadu_ps(values), _mm256_setzero_ps(), _CMP_NEQ_UQ);

    return (unsigned)_mm256_movemask_ps(is_nonzero);
}

AVX2 static inline unsigned
mask_above_avx2(const uint32_t *keys, uint32_t threshold)
{
    /* there are only signed comparisons: both sides are moved down by 2^31 */
    const __m256i flip = _mm256_set1_epi32(INT32_MIN);
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)keys);
    const __m256i y = _mm256_set1_epi32((int32_t)(threshold ^ 0x80000000u));

    return (unsigned)_mm256_movemask_ps(
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(x, flip), y)));
}

AVX2 static inline __m256i
lookup_u16_avx2(const int32_t *map, const uint16_t *indices)
{
    return _mm256_setr_epi32(map[indices[0]], map[indices[1]], map[indices[2]], map[indices[3]],
                             map[indices[4]], map[indices[5]], map[indices[6]], map[indices[7]]);
}

AVX2 static inline __m256i
lookup_u32_avx2(const int32_t *map, const uint32_t *indices)
{
    return _mm256_setr_epi32(map[indices[0]], map[indices[1]], map[indices[2]], map[indices[3]],
                             map[indices[4]], map[indices[5]], map[indices[6]], map[indices[7]]);
}

AVX2 static inline size_t
store_mapped_avx2(__m256i ids, const float *values, int32_t *ids_out, float *values_out)
{
    const unsigned keep = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(ids)) & 0xFFu;
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)values);

    if (SCIO_LIKELY(keep == 0xFFu)) {
        _mm256_storeu_si256((__m256i *)(void *)ids_out, ids);
        _mm256_storeu_si256((__m256i *)(void *)values_out, x);
        return 8;
    }
    store_moved_avx2(ids, x, keep, ids_out, values_out);
    return (size_t)__builtin_popcount(keep);
}

AVX2 static inline void
store_halves_avx2(const float *values, uint16_t *out)
{
    _mm_storeu_si128((__m128i *)(void *)out,
                     _mm256_cvtps_ph(_mm256_loadu_ps(values), _MM_FROUND_TO_NEAREST_INT));
}

/* --- AVX-512: 16 lanes; compressed in a register and stored whole, since the form that stores part
 * of a vector is slow on some CPUs --- */

AVX512 static inline void
store_moved_avx512(__m512i ids, __m512i values, unsigned keep, int32_t *ids_out, float *values_out)
{
    const __mmask16 mask = (__mmask16)keep;

    _mm512_storeu_si512(ids_out, _mm512_maskz_compress_epi32(mask, ids));
    _mm512_storeu_si512(values_out, _mm512_maskz_compress_epi32(mask, values));
}

AVX512 static inline void
store_kept_avx512(const int32_t *ids, const float *values, unsigned keep, int32_t *ids_out,
                  float *values_out)
{
    store_moved_avx512(_mm512_loadu_si512(ids), _mm512_loadu_si512(values), keep, ids_out,
                       values_out);
}

AVX512 static inline unsigned
mask_nonzero_avx512(const float *values)
{
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(values), _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

AVX512 static inline unsigned
mask_above_avx512(const uint32_t *keys, uint32_t threshold)
{
    return _mm512_cmpgt_epu32_mask(_mm512_loadu_si512(keys), _mm512_set1_epi32((int32_t)threshold));
}

AVX512 static inline __m512i
lookup_u16_avx512(const int32_t *map, const uint16_t *indices)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(lookup_u16_avx2(map, indices)),
                              lookup_u16_avx2(map, indices + 8), 1);
}

AVX512 static inline __m512i
lookup_u32_avx512(const int32_t *map, const uint32_t *indices)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(lookup_u32_avx2(map, indices)),
                              lookup_u32_avx2(map, indices + 8), 1);
}

AVX512 static inline size_t
store_mapped_avx512(__m512i ids, const float *values, int32_t *ids_out, float *values_out)
{
    const unsigned keep = _mm512_cmpge_epi32_mask(ids, _mm512_setzero_si512());
    const __m512i x = _mm512_loadu_si512(values);

    if (SCIO_LIKELY(keep == 0xFFFFu)) {
        _mm512_storeu_si512(ids_out, ids);
        _mm512_storeu_si512(values_out, x);
        return 16;
    }
    store_moved_avx512(ids, x, keep, ids_out, values_out);
    return (size_t)__builtin_popcount(keep);
}

AVX512 static inline void
store_halves_avx512(const float *values, uint16_t *out)
{
    _mm256_storeu_si256((__m256i *)(void *)out,
                        _mm512_cvtps_ph(_mm512_loadu_ps(values), _MM_FROUND_TO_NEAREST_INT));
}
