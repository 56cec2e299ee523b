/* Uses what a C program of a shell script's size uses, and says what came of it: one line each, `ok` or what
 * went wrong. Built with clang for wasm32-wasip1 against wasi-libc.
 *
 *     probe FOLDER [WORD…]   files, links and folders below FOLDER; a relative path; clocks, random numbers,
 *                            the environment, standard input, and the WORDs
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(const char *what, int good) {
    if (good) {
        printf("%s ok\n", what);
    } else {
        failures++;
        printf("%s failed: %s\n", what, strerror(errno));
    }
}

static int write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) return 0;
    int good = fputs(text, file) >= 0;
    return fclose(file) == 0 && good;
}

static int reads(const char *path, const char *text) {
    char found[64] = "";
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    char *line = fgets(found, sizeof found, file);
    fclose(file);
    return line && strcmp(found, text) == 0;
}

static int count(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return -1;
    int entries = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        entries += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(folder);
    return entries;
}

static char *below(const char *folder, const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void files(const char *folder) {
    struct stat found;
    char target[64];
    check("write", write_file(below(folder, "file"), "hello"));
    check("read", reads(below(folder, "file"), "hello"));
    check("stat", !stat(below(folder, "file"), &found) && found.st_size == 5 && S_ISREG(found.st_mode));
    check("mkdir", !mkdir(below(folder, "sub"), 0755));
    check("rename", !rename(below(folder, "file"), below(folder, "sub/moved")));
    check("symlink", !symlink("sub/moved", below(folder, "link")));
    ssize_t length = readlink(below(folder, "link"), target, sizeof target);
    check("readlink", length == 9 && !memcmp(target, "sub/moved", 9));
    check("through the link", reads(below(folder, "link"), "hello"));
    check("hard link", !link(below(folder, "sub/moved"), below(folder, "second")));
    check("list", count(folder) == 3);
    int file = open(below(folder, "second"), O_RDWR);
    check("seek", file >= 0 && lseek(file, 1, SEEK_SET) == 1 && write(file, "E", 1) == 1);
    check("truncate", !ftruncate(file, 3) && !fsync(file) && !close(file));
    check("both names", reads(below(folder, "sub/moved"), "hEl"));
    check("unlink", !unlink(below(folder, "link")) && !unlink(below(folder, "second")));
    check("not empty", rmdir(below(folder, "sub")) && errno == ENOTEMPTY);
    check("outside", open(below(folder, "../../../../etc/passwd"), O_RDONLY) < 0);
    errno = 0;
    check("absolute link", symlink("/etc/hostname", below(folder, "absolute")) != 0 ||
                               open(below(folder, "absolute"), O_RDONLY) < 0);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "probe FOLDER [WORD…]\n");
        return 2;
    }
    files(argv[1]);
    check("relative", reads("greeting", "from the working directory\n"));
    check("root file", access("/etc/hostname", R_OK) == 0);
    struct timespec before, after, pause = {0, 2000000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long long waited = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
    check("clock", waited >= 2000000 && time(NULL) > 1700000000);
    unsigned char random[2][16];
    check("random", !getentropy(random[0], 16) && !getentropy(random[1], 16) && memcmp(random[0], random[1], 16));
    const char *colour = getenv("COLOUR");
    check("environment", colour && !strcmp(colour, "red"));
    check("standard input", fgetc(stdin) == EOF);
    for (int i = 2; i < argc; i++) printf("word %s\n", argv[i]);
    return failures;
}
