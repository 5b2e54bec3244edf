/* Datatypes (hdf5_format.md 1.8): the head that all share, and the classes without a type inside.
 * A sound type that scio cannot give values of is parsed all the same and says why in
 * `unsupported`, so that listing a file never fails on it. */
#include "h5read/type_internal.h"

#include "base/mem.h"
#include "h5read/shared.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WHAT "datatype"
#define BIT_BIG_ENDIAN 0x01u
#define BIT_SIGNED 0x08u
#define BIT_VAX 0x40u
#define MANTISSA_IMPLIED 2u

void
scio_h5_type_refuse(scio_h5_type *type, const char *format, ...)
{
    va_list args;

    if (type->unsupported[0] != '\0')
        return;
    va_start(args, format);
    (void)vsnprintf(type->unsupported, sizeof type->unsupported, format, args);
    va_end(args);
}

/* Bits [offset, offset + precision) lie in the element. */
static scio_status
take_bit_range(const scio_type_reader *reader, const scio_h5_type *type, uint16_t *offset_out,
               uint16_t *precision_out, scio_error *err)
{
    const uint64_t n_bits = (uint64_t)type->itemsize * 8;

    SCIO_TRY(scio_cursor_u16(reader->cursor, offset_out, err));
    SCIO_TRY(scio_cursor_u16(reader->cursor, precision_out, err));
    if (*precision_out == 0 || *precision_out > n_bits || *offset_out > n_bits - *precision_out)
        return scio_fail(
            err, SCIO_ECORRUPT,
            WHAT " at byte %" PRIu64 ": bits %u to %u + %u of an element of %" PRIu32 " bytes",
            reader->position, *offset_out, *offset_out, *precision_out, type->itemsize);
    return SCIO_OK;
}

/* NONE when there is no integer of so many bytes. */
static scio_dtype
integer_dtype(uint32_t itemsize, bool is_signed)
{
    switch (itemsize) {
    case 1:
        return is_signed ? SCIO_I8 : SCIO_U8;
    case 2:
        return is_signed ? SCIO_I16 : SCIO_U16;
    case 4:
        return is_signed ? SCIO_I32 : SCIO_U32;
    case 8:
        return is_signed ? SCIO_I64 : SCIO_U64;
    default:
        return SCIO_DTYPE_NONE;
    }
}

/* Integers and bitfields, which are read as unsigned. */
static scio_status
read_integer(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const bool is_bitfield = type->type_class == SCIO_H5_BITFIELD;
    uint16_t offset = 0, precision = 0;

    SCIO_TRY(take_bit_range(reader, type, &offset, &precision, err));
    type->is_big_endian = (reader->bits & BIT_BIG_ENDIAN) != 0;
    type->is_signed = !is_bitfield && (reader->bits & BIT_SIGNED) != 0;
    if (offset == 0 && precision == (uint64_t)type->itemsize * 8)
        type->dtype = integer_dtype(type->itemsize, type->is_signed);
    if (type->dtype == SCIO_DTYPE_NONE)
        scio_h5_type_refuse(type, "%s of %" PRIu32 " bytes, bit offset %u, precision %u",
                            is_bitfield ? "bitfield" : "integer", type->itemsize, offset,
                            precision);
    return SCIO_OK;
}

typedef struct float_layout {
    uint32_t itemsize;
    unsigned offset, precision, sign;
    unsigned exponent_at, exponent_nbits, mantissa_at, mantissa_nbits;
    uint32_t bias;
} float_layout;

static scio_dtype
float_dtype(const float_layout *layout)
{
    static const struct {
        float_layout layout;
        scio_dtype dtype;
    } known[] = {
        {{2, 0, 16, 15, 10, 5, 0, 10, 15}, SCIO_F16},
        {{4, 0, 32, 31, 23, 8, 0, 23, 127}, SCIO_F32},
        {{8, 0, 64, 63, 52, 11, 0, 52, 1023}, SCIO_F64},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (memcmp(layout, &known[i].layout, sizeof *layout) == 0)
            return known[i].dtype;
    return SCIO_DTYPE_NONE;
}

static bool
is_inside(unsigned at, unsigned n_bits, unsigned precision)
{
    return n_bits >= 1 && n_bits <= precision && at <= precision - n_bits;
}

static bool
is_apart(unsigned a_at, unsigned a_nbits, unsigned b_at, unsigned b_nbits)
{
    return a_at + a_nbits <= b_at || b_at + b_nbits <= a_at;
}

static bool
is_sound(const float_layout *f)
{
    return is_inside(f->sign, 1, f->precision) &&
           is_inside(f->exponent_at, f->exponent_nbits, f->precision) &&
           is_inside(f->mantissa_at, f->mantissa_nbits, f->precision) &&
           is_apart(f->sign, 1, f->exponent_at, f->exponent_nbits) &&
           is_apart(f->sign, 1, f->mantissa_at, f->mantissa_nbits) &&
           is_apart(f->exponent_at, f->exponent_nbits, f->mantissa_at, f->mantissa_nbits);
}

static scio_status
read_float(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const bool is_vax = (reader->bits & BIT_VAX) != 0;
    float_layout f;
    uint16_t offset = 0, precision = 0;
    uint8_t parts[4] = {0};

    memset(&f, 0, sizeof f);
    SCIO_TRY(take_bit_range(reader, type, &offset, &precision, err));
    for (unsigned i = 0; i < 4; i++)
        SCIO_TRY(scio_cursor_u8(reader->cursor, &parts[i], err));
    SCIO_TRY(scio_cursor_u32(reader->cursor, &f.bias, err));
    f.itemsize = type->itemsize;
    f.offset = offset;
    f.precision = precision;
    f.sign = reader->bits >> 8 & 0xff;
    f.exponent_at = parts[0];
    f.exponent_nbits = parts[1];
    f.mantissa_at = parts[2];
    f.mantissa_nbits = parts[3];
    type->is_big_endian = (reader->bits & BIT_BIG_ENDIAN) != 0;
    type->is_signed = true;
    if (!is_sound(&f) || (is_vax && !type->is_big_endian))
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": float of precision %u with sign bit %u, "
                              "exponent %u + %u, mantissa %u + %u, flags 0x%02" PRIx32,
                         reader->position, f.precision, f.sign, f.exponent_at, f.exponent_nbits,
                         f.mantissa_at, f.mantissa_nbits, reader->bits & 0xff);
    if (is_vax)
        scio_h5_type_refuse(type, "VAX float of %" PRIu32 " bytes", type->itemsize);
    else if ((reader->bits >> 4 & 3) == MANTISSA_IMPLIED)
        type->dtype = float_dtype(&f);
    if (type->dtype == SCIO_DTYPE_NONE)
        scio_h5_type_refuse(type,
                            "float of %" PRIu32 " bytes, bit offset %u, precision %u, %u bits of "
                            "exponent",
                            type->itemsize, f.offset, f.precision, f.exponent_nbits);
    return SCIO_OK;
}

static scio_status
read_time(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    uint16_t precision = 0;

    SCIO_TRY(scio_cursor_u16(reader->cursor, &precision, err));
    scio_h5_type_refuse(type, "time of %" PRIu32 " bytes, precision %u", type->itemsize, precision);
    return SCIO_OK;
}

static void
read_string(const scio_type_reader *reader, scio_h5_type *type)
{
    const uint64_t max_nbytes = scio_h5_file_limits(reader->file)->chunk_nbytes;
    const unsigned charset = reader->bits >> 4 & 0xf;

    type->padding = reader->bits & 0xf;
    type->is_utf8 = charset == 1;
    if (type->padding > 2)
        scio_h5_type_refuse(type, "string with padding %u", type->padding);
    if (charset > 1)
        scio_h5_type_refuse(type, "string with character set %u", charset);
    if (type->itemsize > max_nbytes)
        scio_h5_type_refuse(type, "string of %" PRIu32 " bytes, more than the limit chunk_nbytes",
                            type->itemsize);
}

static scio_status
read_opaque(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const size_t nbytes = reader->bits & 0xff;
    const uint8_t *tag = NULL;
    const void *end;

    SCIO_TRY(scio_cursor_bytes(reader->cursor, nbytes, &tag, err));
    end = nbytes == 0 ? NULL : memchr(tag, 0, nbytes);
    return scio_mem_strndup((const char *)tag,
                            end == NULL ? nbytes : (size_t)((const uint8_t *)end - tag),
                            &type->opaque_tag, err);
}

static scio_status
read_reference(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    const unsigned offset_nbytes = scio_h5_file_superblock(reader->file)->offset_nbytes;
    static const char *const names[] = {"object", "region", "new object", "new region",
                                        "attribute"};

    type->reference_kind = reader->bits & 0xf;
    if (type->reference_kind > 4)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": reference of kind %u, expected at most 4",
                         reader->position, type->reference_kind);
    if (type->reference_kind != 0)
        scio_h5_type_refuse(type, "%s reference (kind %u)", names[type->reference_kind],
                            type->reference_kind);
    if (type->reference_kind <= 1 &&
        type->itemsize != offset_nbytes + (type->reference_kind == 1 ? 4 : 0))
        return scio_fail(
            err, SCIO_ECORRUPT,
            WHAT " at byte %" PRIu64 ": %s reference of %" PRIu32 " bytes with addresses of %u",
            reader->position, names[type->reference_kind], type->itemsize, offset_nbytes);
    return SCIO_OK;
}

static scio_status
read_properties(const scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    switch (type->type_class) {
    case SCIO_H5_INTEGER:
    case SCIO_H5_BITFIELD:
        return read_integer(reader, type, err);
    case SCIO_H5_FLOAT:
        return read_float(reader, type, err);
    case SCIO_H5_TIME:
        return read_time(reader, type, err);
    case SCIO_H5_STRING:
        read_string(reader, type);
        return SCIO_OK;
    case SCIO_H5_OPAQUE:
        return read_opaque(reader, type, err);
    case SCIO_H5_REFERENCE:
        return read_reference(reader, type, err);
    case SCIO_H5_COMPOUND:
        return scio_h5_type_read_compound(reader, type, err);
    case SCIO_H5_ENUM:
        return scio_h5_type_read_enum(reader, type, err);
    case SCIO_H5_VLEN:
        return scio_h5_type_read_vlen(reader, type, err);
    case SCIO_H5_ARRAY:
        return scio_h5_type_read_array(reader, type, err);
    case SCIO_H5_COMPLEX:
        return scio_h5_type_read_complex(reader, type, err);
    }
    return scio_fail(err, SCIO_EUNSUPPORTED,
                     WHAT " at byte %" PRIu64 ": class %u, read are 0 to 11", reader->position,
                     (unsigned)type->type_class);
}

/* u8 class and version, 24-bit field, u32 size. */
static scio_status
read_head(scio_type_reader *reader, scio_h5_type *type, scio_error *err)
{
    uint8_t class_version = 0;
    uint64_t bits = 0;

    SCIO_TRY(scio_cursor_u8(reader->cursor, &class_version, err));
    SCIO_TRY(scio_cursor_uint(reader->cursor, 3, &bits, err));
    SCIO_TRY(scio_cursor_u32(reader->cursor, &type->itemsize, err));
    reader->bits = (uint32_t)bits;
    type->type_class = (scio_h5_class)(class_version & 0xf);
    type->version = class_version >> 4;
    if (type->version < 1 || type->version > 5)
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         WHAT " at byte %" PRIu64 ": version %u, read are 1 to 5", reader->position,
                         type->version);
    if (type->itemsize == 0)
        return scio_fail(err, SCIO_ECORRUPT, WHAT " at byte %" PRIu64 ": size 0, class %u",
                         reader->position, (unsigned)type->type_class);
    return SCIO_OK;
}

scio_status
scio_h5_type_read(const scio_type_reader *outer, scio_h5_type **out, scio_error *err)
{
    scio_type_reader reader = *outer;
    scio_h5_type *type = NULL;
    scio_status status;

    *out = NULL;
    reader.depth++;
    reader.position = reader.cursor->position + reader.cursor->at;
    if (reader.depth > SCIO_H5_MAX_NESTING)
        return scio_fail(err, SCIO_ECORRUPT,
                         WHAT " at byte %" PRIu64 ": types are nested more than %d deep",
                         reader.position, SCIO_H5_MAX_NESTING);
    SCIO_TRY(scio_mem_zalloc(1, sizeof *type, &type, err));
    status = read_head(&reader, type, err);
    if (status == SCIO_OK)
        status = read_properties(&reader, type, err);
    if (status != SCIO_OK) {
        scio_h5_type_free(type);
        return status;
    }
    *out = type;
    return SCIO_OK;
}

scio_status
scio_h5_type_parse(const scio_h5_file *file, scio_cursor *cursor, scio_h5_type **out,
                   scio_error *err)
{
    const scio_type_reader start = {file, cursor, 0, 0, 0};

    return scio_h5_type_read(&start, out, err);
}

scio_status
scio_h5_type_from_message(const scio_h5_file *file, const scio_h5_message *message,
                          scio_h5_type **out, scio_error *err)
{
    const scio_h5_message *target = message;
    scio_h5_header header = {0};
    scio_cursor cursor;
    scio_status status;

    *out = NULL;
    if (scio_h5_message_is_shared(message))
        SCIO_TRY(scio_h5_shared_follow(file, message, &header, &target, err));
    cursor = scio_h5_message_cursor(target, WHAT);
    status = scio_h5_type_parse(file, &cursor, out, err);
    scio_h5_header_clear(&header);
    return status;
}

void
scio_h5_type_free(scio_h5_type *type)
{
    if (type == NULL)
        return;
    for (size_t i = 0; i < type->n_members; i++) {
        if (type->members != NULL) {
            scio_mem_free(type->members[i].name);
            scio_h5_type_free(type->members[i].type);
        }
        if (type->enum_names != NULL)
            scio_mem_free(type->enum_names[i]);
    }
    scio_mem_free(type->members);
    scio_mem_free(type->enum_names);
    scio_mem_free(type->enum_values);
    scio_h5_type_free(type->base);
    scio_mem_free(type->opaque_tag);
    scio_mem_free(type);
}

bool
scio_h5_type_has_vlen(const scio_h5_type *type)
{
    if (type->type_class == SCIO_H5_VLEN)
        return true;
    if (type->base != NULL && scio_h5_type_has_vlen(type->base))
        return true;
    for (size_t i = 0; i < type->n_members && type->members != NULL; i++)
        if (scio_h5_type_has_vlen(type->members[i].type))
            return true;
    return false;
}
