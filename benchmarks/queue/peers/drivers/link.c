/* The naive queue of link.py: the same calls, in C. Works in the current folder, which link.py's setup has made.
 *
 *   link enqueue DURABLE JOBS                       prints the seconds it took
 *   link work DURABLE K WORKERS READY_FD GO_FD      worker K; writes records/K as records.py does
 *
 * Any error that the queue does not expect ends the program with status 1. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FAN = 256, TEXT = 200, PATH = 128 };

static int durable, record;

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sync_folder(const char *path)
{
    if (!durable)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    check(fd >= 0 && fsync(fd) == 0, path);
    close(fd);
}

static void put_file(const char *path, int job)
{
    char text[TEXT + 1];
    snprintf(text, sizeof text, "%08d%192s", job, "");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    check(fd >= 0 && write(fd, text, TEXT) == TEXT, path);
    if (durable)
        check(fsync(fd) == 0, path);
    close(fd);
}

/* Sets a write-once cell; 1 for the one who did. */
static int publish(const char *private, const char *cell, const char *folder, int job)
{
    put_file(private, job);
    int won = link(private, cell) == 0;
    check(won || errno == EEXIST || errno == ENOENT, cell);
    check(unlink(private) == 0, private);
    if (won)
        sync_folder(folder);
    return won;
}

static void enqueue(int jobs)
{
    char made[PATH], file[PATH], home[PATH];
    long long began = now();
    for (int job = 0; job < jobs; job++) {
        snprintf(made, PATH, "tmp/%08d", job);
        snprintf(file, PATH, "tmp/%08d/item.json", job);
        snprintf(home, PATH, "open/%08d", job);
        check(mkdir(made, 0700) == 0, made);
        put_file(file, job);
        sync_folder(made);
        check(rename(made, home) == 0, home);
        sync_folder("open");
    }
    printf("%.9f\n", (now() - began) / 1e9);
}

/* Claims the job, runs it, completes it. 0: it is another worker's. */
static int take(const char *name, const char *private)
{
    char home[PATH], cell[PATH], stub[PATH], fan[PATH], text[TEXT + 1];
    snprintf(home, PATH, "open/%.64s", name);
    snprintf(cell, PATH, "open/%.64s/1.claim", name);
    if (access(cell, F_OK) == 0)
        return 0;
    snprintf(cell, PATH, "open/%.64s/item.json", name);
    int fd = open(cell, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    check(fd >= 0 && read(fd, text, TEXT) == TEXT, cell);
    close(fd);
    text[8] = 0;
    int job = atoi(text);
    snprintf(cell, PATH, "open/%.64s/1.claim", name);
    if (!publish(private, cell, home, job))
        return 0;
    int length = snprintf(text, sizeof text, "%08d %019lld\n", job, now());
    check(write(record, text, length) == length, "record");
    snprintf(cell, PATH, "open/%.64s/1.end", name);
    publish(private, cell, home, job);
    snprintf(fan, PATH, "done/%02x", job % FAN);
    snprintf(stub, PATH, "done/%02x/%.64s", job % FAN, name);
    check(link(cell, stub) == 0, stub);
    sync_folder(fan);
    snprintf(cell, PATH, "archive/%.64s", name);
    check(rename(home, cell) == 0, home);
    return 1;
}

/* One listing of open/, each job tried once, from the worker's own share on. -> how many were taken */
static int pass(int k, int workers, const char *private)
{
    char (*names)[16] = NULL;
    size_t count = 0, room = 0;
    DIR *open_folder = opendir("open");
    check(open_folder != NULL, "open");
    for (struct dirent *e; (e = readdir(open_folder)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        if (count == room) {
            room = room ? 2 * room : 1024;
            names = realloc(names, room * sizeof *names);
            check(names != NULL, "memory");
        }
        snprintf(names[count++], sizeof *names, "%.15s", e->d_name);
    }
    closedir(open_folder);
    int found = 0;
    for (size_t i = 0; i < count; i++)
        found += take(names[(i + count * k / workers) % count], private);
    free(names);
    return found;
}

static void work(int k, int workers, int ready, int go)
{
    char path[PATH], byte = '.';
    snprintf(path, PATH, "records/%d", k);
    record = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    check(record >= 0, path);
    snprintf(path, PATH, "tmp/%d", k);
    check(write(ready, &byte, 1) == 1, "ready");
    check(read(go, &byte, 1) >= 0, "go");
    while (pass(k, workers, path))
        ;
}

int main(int argc, char **argv)
{
    durable = argc > 2 && atoi(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "enqueue"))
        enqueue(atoi(argv[3]));
    else if (argc == 7 && !strcmp(argv[1], "work"))
        work(atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
    else
        return 2;
    return 0;
}
