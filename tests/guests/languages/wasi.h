/* What SQLite's shell calls and wasi-libc does not have, or not in every version: modes of files, and paths without
 * links in them. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define chmod wasi_chmod
#define realpath wasi_realpath

static inline int wasi_chmod(const char *path, mode_t mode) {
    (void)path;
    (void)mode;
    return 0;
}

static inline char *wasi_realpath(const char *path, char *out) { return out ? strcpy(out, path) : strdup(path); }
