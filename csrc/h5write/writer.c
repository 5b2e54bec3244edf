/* A file being written: made, closed, discarded; its first failure. */
#include "h5write/writer_private.h"

#include "base/mem.h"
#include "base/pwrite.h"
#include "h5write/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 64 }; /* of every array: mapped ones are used where they lie */

scio_status
scio_h5_writer_check(const scio_h5_writer *writer, scio_error *err)
{
    if (writer->pid != getpid())
        return scio_fail(err, SCIO_EINVAL, "%s is being written by process %ld, this is %ld",
                         writer->path, (long)writer->pid, (long)getpid());
    if (writer->failure.code != SCIO_OK) {
        scio_error_move(err, &writer->failure);
        return writer->failure.code;
    }
    if (writer->is_closed)
        return scio_fail(err, SCIO_EINVAL, "%s was closed", writer->path);
    return SCIO_OK;
}

scio_status
scio_h5_writer_settle(scio_h5_writer *writer, scio_error *own, const char *place, scio_error *err)
{
    scio_error failure = SCIO_ERROR_INIT;

    if (writer->latch.saved_errno != 0)
        (void)scio_fail_errno(&failure, SCIO_EWRITE, writer->latch.saved_errno, "writing");
    else
        scio_error_move(&failure, own);
    if (failure.code == SCIO_OK)
        return SCIO_OK;
    if (place != NULL)
        scio_context(&failure, "%s", place);
    scio_context(&failure, "%s", writer->path);
    writer->failure = failure;
    scio_error_move(err, &failure);
    return failure.code;
}

/* ---- the file ---- */

static hid_t
make_access_list(scio_latch *latch, hid_t *driver_out)
{
    const hid_t list = H5Pcreate(H5P_FILE_ACCESS);

    if (list < 0)
        return -1;
    /* what every release from 1.8 on reads; a later default of the library changes nothing */
    if (H5Pset_libver_bounds(list, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18) < 0 ||
        H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) < 0 ||
        H5Pset_alignment(list, 1, ALIGNMENT) < 0 || scio_latch_use(list, latch, driver_out) < 0) {
        (void)H5Pclose(list);
        return -1;
    }
    return list;
}

static scio_status
create_file(scio_h5_writer *writer, bool has_user_block, scio_error *err)
{
    hid_t access = -1, create = -1;
    scio_status status;

    SCIO_TRY(scio_h5_check_version(err));
    access = make_access_list(&writer->latch, &writer->driver);
    create = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && create >= 0 && H5Pset_obj_track_times(create, 0) >= 0 &&
        (!has_user_block || H5Pset_userblock(create, SCIO_H5_USER_BLOCK_NBYTES) >= 0))
        writer->file = H5Fcreate(writer->path, H5F_ACC_TRUNC, create, access);
    status = writer->file < 0 ? scio_h5_library_error("making the file", err) : SCIO_OK;
    if (create >= 0)
        (void)H5Pclose(create);
    if (access >= 0)
        (void)H5Pclose(access);
    return status;
}

/* libhdf5 leaves the user block alone, but for its length. */
static void
write_mark(scio_h5_writer *writer, const char *mark)
{
    char block[SCIO_H5_USER_BLOCK_NBYTES] = {0};

    memcpy(block, mark, strlen(mark));
    writer->latch.saved_errno = scio_pwrite(writer->latch.fd, block, sizeof block, 0);
}

/* mark: NULL without a user block */
static scio_status
writer_new(const char *path, const char *mark, scio_h5_writer **out, scio_error *err)
{
    scio_h5_writer *writer = NULL;
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_turn turn;
    scio_status status;

    *out = NULL;
    SCIO_TRY(scio_mem_zalloc(1, sizeof *writer, &writer, err));
    writer->file = writer->driver = -1;
    writer->latch.fd = -1;
    writer->pid = getpid();
    status = scio_mem_strndup(path, strlen(path), &writer->path, err);
    if (status != SCIO_OK)
        goto done;
    do {
        writer->latch.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
    } while (writer->latch.fd < 0 && errno == EINTR);
    if (writer->latch.fd < 0) {
        status = scio_fail_errno(err, SCIO_EWRITE, errno, "cannot make %s", path);
        goto done;
    }
    scio_h5_turn_begin(&turn);
    (void)create_file(writer, mark != NULL, &own);
    scio_h5_turn_end(&turn);
    if (mark != NULL && writer->latch.saved_errno == 0)
        write_mark(writer, mark);
    status = scio_h5_writer_settle(writer, &own, NULL, err);
    if (status != SCIO_OK)
        goto done;
    *out = writer;
    writer = NULL;
done:
    scio_h5_writer_free(writer);
    return status;
}

scio_status
scio_h5_writer_new(const char *path, scio_h5_writer **out, scio_error *err)
{
    return writer_new(path, NULL, out, err);
}

scio_status
scio_h5_writer_new_marked(const char *path, const char *mark, scio_h5_writer **out, scio_error *err)
{
    *out = NULL;
    if (strlen(mark) >= SCIO_H5_USER_BLOCK_NBYTES)
        return scio_fail(err, SCIO_EINVAL, "the mark has %zu bytes, expected fewer than %d",
                         strlen(mark), SCIO_H5_USER_BLOCK_NBYTES);
    return writer_new(path, mark, out, err);
}

/* Ends what libhdf5 has of the file. */
static void
close_library(scio_h5_writer *writer, scio_error *err)
{
    if (writer->file >= 0 && H5Fclose(writer->file) < 0)
        (void)scio_h5_library_error("closing", err);
    if (writer->driver >= 0 && H5FDunregister(writer->driver) < 0)
        (void)scio_h5_library_error("closing", err);
    writer->file = writer->driver = -1;
}

scio_status
scio_h5_writer_close(scio_h5_writer *writer, scio_error *err)
{
    scio_error own = SCIO_ERROR_INIT;
    scio_h5_turn turn;

    SCIO_TRY(scio_h5_writer_check(writer, err));
    SCIO_TRY(scio_h5_chunked_finish_all(writer, err));
    scio_h5_turn_begin(&turn);
    close_library(writer, &own);
    scio_h5_turn_end(&turn);
    writer->is_closed = true;
    if (writer->latch.saved_errno == 0)
        writer->latch.saved_errno = scio_fsync(writer->latch.fd);
    if (close(writer->latch.fd) != 0 && errno != EINTR && writer->latch.saved_errno == 0)
        writer->latch.saved_errno = errno;
    writer->latch.fd = -1;
    return scio_h5_writer_settle(writer, &own, "closing", err);
}

void
scio_h5_writer_free(scio_h5_writer *writer)
{
    scio_h5_turn turn;

    if (writer == NULL)
        return;
    /* In a forked child the library's part belongs to the parent. */
    if ((writer->file < 0 && writer->driver < 0) || writer->pid != getpid()) {
        scio_h5_chunked_free_all(writer, false);
    } else {
        if (writer->latch.saved_errno == 0)
            writer->latch.saved_errno = ECANCELED; /* nothing more is written */
        scio_h5_turn_begin(&turn);
        scio_h5_chunked_free_all(writer, true);
        close_library(writer, NULL);
        scio_h5_turn_end(&turn);
    }
    if (writer->latch.fd >= 0)
        (void)close(writer->latch.fd);
    scio_h5_write_scratch_free(writer->scratch);
    scio_mem_free(writer->path);
    scio_mem_free(writer);
}
