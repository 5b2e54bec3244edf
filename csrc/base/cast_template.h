/* One dtype's load into a wide block and its three stores.  Include with
 *   CAST_NAME, CAST_CTYPE   the dtype
 *   CAST_WIDE               i, u or f: the wide type that holds its values
 *   CAST_MIN, CAST_MAX      ends of an integer dtype
 *   CAST_IS_BOOL, CAST_IS_U64, CAST_IS_FLOAT     as it is
 *   CAST_LOAD, CAST_STORE_INT, CAST_STORE_FLOAT  conversions of a float dtype
 * defined; all are undefined at the end. */
#define CAST_JOIN_(a, b) a##b
#define CAST_JOIN(a, b) CAST_JOIN_(a, b)

#if !defined(CAST_LOAD)
#define CAST_LOAD(x) (x)
#endif

static void
CAST_JOIN(load_, CAST_NAME)(const unsigned char *src, wide_block *wide, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        CAST_CTYPE x;

        memcpy(&x, src + i * sizeof x, sizeof x);
        wide->CAST_WIDE[i] = CAST_LOAD(x);
    }
}

#if defined(CAST_IS_BOOL)
#define CAST_FITS_I(x) true
#define CAST_FITS_U(x) true
#define CAST_FITS_F(x) true
#define CAST_FROM_INT(x) ((uint8_t)((x) != 0))
#define CAST_FROM_FLOAT(x) ((uint8_t)((x) != 0))
#elif defined(CAST_IS_FLOAT)
#define CAST_FITS_I(x) true
#define CAST_FITS_U(x) true
#define CAST_FITS_F(x) true
#define CAST_FROM_INT(x) CAST_STORE_INT(x)
#define CAST_FROM_FLOAT(x) CAST_STORE_FLOAT(x)
#elif defined(CAST_IS_U64)
#define CAST_FITS_I(x) ((x) >= 0)
#define CAST_FITS_U(x) true
#define CAST_FITS_F(x) ((x) >= 0 && (x) < 0x1p64 && (x) == trunc(x))
#define CAST_FROM_INT(x) ((uint64_t)(x))
#define CAST_FROM_FLOAT(x) ((uint64_t)(x))
#else
/* (double)CAST_MAX + 1 is exact for every width up to 63 bits; for int64 (double)INT64_MAX is 2^63. */
#define CAST_FITS_I(x) ((x) >= (int64_t)CAST_MIN && (x) <= (int64_t)CAST_MAX)
#define CAST_FITS_U(x) ((x) <= (uint64_t)CAST_MAX)
#define CAST_FITS_F(x)                                                                             \
    ((x) >= (double)CAST_MIN && (x) <= (double)CAST_MAX && (x) < 0x1p63 && (x) == trunc(x))
#define CAST_FROM_INT(x) ((CAST_CTYPE)(x))
#define CAST_FROM_FLOAT(x) ((CAST_CTYPE)(x))
#endif

static bool
CAST_JOIN(store_i_, CAST_NAME)(const wide_block *wide, unsigned char *dst, size_t n_items,
                               size_t *i_bad_out)
{
    unsigned n_bad = 0;

    for (size_t i = 0; i < n_items; i++)
        n_bad |= (unsigned)!(CAST_FITS_I(wide->i[i]));
    if (n_bad != 0) {
        for (*i_bad_out = 0; CAST_FITS_I(wide->i[*i_bad_out]);)
            ++*i_bad_out;
        return false;
    }
    for (size_t i = 0; i < n_items; i++) {
        const CAST_CTYPE y = CAST_FROM_INT(wide->i[i]);

        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
    return true;
}

static bool
CAST_JOIN(store_u_, CAST_NAME)(const wide_block *wide, unsigned char *dst, size_t n_items,
                               size_t *i_bad_out)
{
    unsigned n_bad = 0;

    for (size_t i = 0; i < n_items; i++)
        n_bad |= (unsigned)!(CAST_FITS_U(wide->u[i]));
    if (n_bad != 0) {
        for (*i_bad_out = 0; CAST_FITS_U(wide->u[*i_bad_out]);)
            ++*i_bad_out;
        return false;
    }
    for (size_t i = 0; i < n_items; i++) {
        const CAST_CTYPE y = CAST_FROM_INT(wide->u[i]);

        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
    return true;
}

static bool
CAST_JOIN(store_f_, CAST_NAME)(const wide_block *wide, unsigned char *dst, size_t n_items,
                               size_t *i_bad_out)
{
    unsigned n_bad = 0;

    for (size_t i = 0; i < n_items; i++)
        n_bad |= (unsigned)!(CAST_FITS_F(wide->f[i]));
    if (n_bad != 0) {
        for (*i_bad_out = 0; CAST_FITS_F(wide->f[*i_bad_out]);)
            ++*i_bad_out;
        return false;
    }
    for (size_t i = 0; i < n_items; i++) {
        const CAST_CTYPE y = CAST_FROM_FLOAT(wide->f[i]);

        memcpy(dst + i * sizeof y, &y, sizeof y);
    }
    return true;
}

#undef CAST_FITS_I
#undef CAST_FITS_U
#undef CAST_FITS_F
#undef CAST_FROM_INT
#undef CAST_FROM_FLOAT
#undef CAST_LOAD
#undef CAST_STORE_INT
#undef CAST_STORE_FLOAT
#undef CAST_IS_BOOL
#undef CAST_IS_U64
#undef CAST_IS_FLOAT
#undef CAST_MIN
#undef CAST_MAX
#undef CAST_WIDE
#undef CAST_CTYPE
#undef CAST_NAME
#undef CAST_JOIN
#undef CAST_JOIN_
