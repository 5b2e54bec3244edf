/* A table of first bytes, then a look at whether it is text. */
#include "h5read/sniff.h"

#include <stdbool.h>
#include <string.h>

typedef struct known_start {
    size_t at;
    size_t nbytes;
    const char *bytes;
    const char *text;
} known_start;

#define START(at, bytes, text)                                                                     \
    {                                                                                              \
        at, sizeof(bytes) - 1, bytes, text                                                         \
    }

static const known_start known_starts[] = {
    START(0, "\x1f\x8b", "a gzip-compressed file (gunzip it first)"),
    START(0, "PK\x03\x04", "a zip archive (unzip it first)"),
    START(0, "PK\x05\x06", "an empty zip archive"),
    START(0, "\x28\xb5\x2f\xfd", "a zstd-compressed file (unzstd it first)"),
    START(0, "BZh", "a bzip2-compressed file (bunzip2 it first)"),
    START(0, "\xfd\x37zXZ", "an xz-compressed file (unxz it first)"),
    START(0, "\x04\x22\x4d\x18", "an LZ4-compressed file (unlz4 it first)"),
    START(0, "7z\xbc\xaf\x27\x1c", "a 7-zip archive (unpack it first)"),
    START(257, "ustar", "a tar archive (unpack it first)"),
    START(0, "\x93NUMPY", "a NumPy .npy file"),
    START(0, "PAR1", "a Parquet file"),
    START(0, "ARROW1", "an Arrow file"),
    START(0, "SQLite format 3", "an SQLite database"),
    START(0, "\x0e\x03\x13\x01", "an HDF4 file (h4toh5 converts it)"),
    START(0, "CDF\x01", "a NetCDF 3 file"),
    START(0, "CDF\x02", "a NetCDF 3 file"),
    START(0, "RDX2", "an R data file"),
    START(0, "RDX3", "an R data file"),
    START(0, "%PDF", "a PDF document"),
    START(0, "%%MatrixMarket", "a Matrix Market text file"),
    START(0, "\x80\x02", "a Python pickle"),
    START(0, "\x80\x03", "a Python pickle"),
    START(0, "\x80\x04", "a Python pickle"),
    START(0, "\x80\x05", "a Python pickle"),
    START(0, "\x89HDF",
          "an HDF5 file whose first bytes were changed, as by a transfer in text mode"),
};

static bool
has_start(const uint8_t *start, size_t nbytes, const known_start *known)
{
    return nbytes >= known->at + known->nbytes &&
           memcmp(start + known->at, known->bytes, known->nbytes) == 0;
}

static bool
is_all_zero(const uint8_t *start, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if (start[i] != 0)
            return false;
    return true;
}

/* No control bytes besides white space: ASCII, Latin or UTF-8. */
static bool
is_text(const uint8_t *start, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if ((start[i] < 0x20 && strchr("\t\n\r\f\x1b", start[i]) == NULL) || start[i] == 0x7f ||
            start[i] == 0)
            return false;
    return true;
}

/* `word` is in lower case. */
static bool
has_word(const uint8_t *text, size_t nbytes, const char *word)
{
    size_t i = 0;

    for (; word[i] != '\0' && i < nbytes; i++) {
        const uint8_t c = text[i] >= 'A' && text[i] <= 'Z' ? (uint8_t)(text[i] + 32) : text[i];

        if (c != (uint8_t)word[i])
            return false;
    }
    return word[i] == '\0';
}

static const char *
sniff_text(const uint8_t *start, size_t nbytes)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    size_t at = nbytes >= 3 && memcmp(start, byte_order_mark, 3) == 0 ? 3 : 0;

    while (at < nbytes && strchr(" \t\r\n", start[at]) != NULL)
        at++;
    if (has_word(start + at, nbytes - at, "<!doctype html") ||
        has_word(start + at, nbytes - at, "<html"))
        return "an HTML page (a download that failed?)";
    if (has_word(start + at, nbytes - at, "<?xml"))
        return "an XML file";
    if (has_word(start + at, nbytes - at, "version https://git-lfs"))
        return "a Git LFS pointer (run `git lfs pull`)";
    return "a text file";
}

const char *
scio_sniff(const uint8_t *start, size_t nbytes)
{
    if (nbytes == 0)
        return "an empty file";
    for (size_t i = 0; i < sizeof known_starts / sizeof known_starts[0]; i++)
        if (has_start(start, nbytes, &known_starts[i]))
            return known_starts[i].text;
    if (is_all_zero(start, nbytes))
        return "a file of zeros (a copy that was not finished?)";
    return is_text(start, nbytes) ? sniff_text(start, nbytes) : "binary data";
}
