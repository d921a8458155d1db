/*
 * The readers of the benchmarks: processes in containers that open, read to the end, and close.
 *
 * Each container is a process that is the init of a PID namespace of its own, in cgroups of its
 * own, with a mount namespace of its own in which it has bound the files that it reads, as a
 * runtime's init does. It sleeps until it is given something to read.
 *
 * The argument is how many containers there are at most. Standard input says which, a line each:
 *
 *     hierarchy DIRECTORY          the root of a cgroup hierarchy
 *     bind SOURCE TARGET           what each container mounts where; the target exists
 *     shared                       one mount namespace for all of them, if there are very many
 *     container CGROUP THREADS     its path below every hierarchy; threads beside the first sleep
 *     begin
 *
 * It answers "ready". Then it obeys, one line of answer for each line of order:
 *
 *     read PATH FIRST COUNT TURNS BATCH PAUSE_USEC
 *             containers FIRST to FIRST+COUNT-1 one after the other, TURNS times round, BATCH reads
 *             at each turn, and a pause before each read. Answer: elapsed nanoseconds, the readers'
 *             context switches, then how long each read took, in nanoseconds.
 *     rush PATH COUNT MSEC
 *             so many containers at once, for so long. Answer: elapsed nanoseconds and reads.
 *     first PATH INDEX
 *             the first line of what that container reads.
 *
 * Whatever fails ends the program with an error. The containers end with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_HIERARCHIES = 32, MOST_BINDS = 64, MOST_SAMPLES = 1 << 20, PATH_BYTES = 512 };
enum { FAILED = 1 };

struct container {
    char cgroup[128];
    int threads;
    _Atomic uint32_t turn; /* it has something to do each time this changes */
};

struct order {
    char path[PATH_BYTES];
    int batch;
    long pause_usec;
    uint64_t until_ns; /* 0: `batch` reads; else as many as there are until then */
    int keep_line;
    char line[256];
    _Atomic uint32_t done; /* how many containers have done it */
    _Atomic uint64_t reads;
    _Atomic uint64_t switches;
    _Atomic uint32_t samples;
    uint64_t took_ns[MOST_SAMPLES];
};

static char hierarchies[MOST_HIERARCHIES][PATH_BYTES];
static char sources[MOST_BINDS][PATH_BYTES], targets[MOST_BINDS][PATH_BYTES];
static int hierarchy_count, bind_count, container_count, most_containers, is_shared;
static struct container *containers;
static struct order *order;

static void fail(const char *what)
{
    fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
    _exit(FAILED);
}

static void *share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wait_while(_Atomic uint32_t *word, uint32_t value)
{
    while (atomic_load(word) == value)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint64_t switches(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw + usage.ru_nivcsw;
}

/* --- in a container ------------------------------------------------------------------------- */

static void read_once(char *buffer, size_t size)
{
    ssize_t got;
    int fd = open(order->path, O_RDONLY);
    if (fd < 0)
        fail(order->path);
    while ((got = read(fd, buffer, size)) > 0)
        ;
    if (got < 0)
        fail(order->path);
    close(fd);
}

static void obey(void)
{
    static char buffer[1 << 16];
    uint64_t reads = 0, switched = switches();
    struct timespec pause = {order->pause_usec / 1000000, order->pause_usec % 1000000 * 1000};
    while (order->until_ns ? now_ns() < order->until_ns : reads < (uint64_t)order->batch) {
        if (order->pause_usec)
            nanosleep(&pause, NULL);
        uint64_t begun_ns = now_ns();
        read_once(buffer, sizeof buffer);
        uint64_t took_ns = now_ns() - begun_ns;
        if (!order->until_ns) {
            uint32_t place = atomic_fetch_add(&order->samples, 1);
            if (place < MOST_SAMPLES)
                order->took_ns[place] = took_ns;
        }
        reads++;
    }
    if (order->keep_line)
        snprintf(order->line, sizeof order->line, "%.*s", (int)strcspn(buffer, "\n"), buffer);
    atomic_fetch_add(&order->reads, reads);
    atomic_fetch_add(&order->switches, switches() - switched);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(path);
    close(fd);
}

static void bind_all(void)
{
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
        fail("a mount namespace");
    for (int i = 0; i < bind_count; i++)
        if (mount(sources[i], targets[i], NULL, MS_BIND, NULL))
            fail(sources[i]);
}

static void *sleep_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void start_threads(int count)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 16);
    while (--count > 0)
        if ((errno = pthread_create(&thread, &attributes, sleep_for_ever, NULL)))
            fail("pthread_create");
}

static void be_container(struct container *self)
{
    char path[2 * PATH_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < hierarchy_count; i++) {
        snprintf(path, sizeof path, "%s/%s/cgroup.procs", hierarchies[i], self->cgroup);
        write_text(path, "0");
    }
    if (!is_shared)
        bind_all();
    start_threads(self->threads);
    for (uint32_t turn = 0;; turn++) {
        wake(&order->done);
        wait_while(&self->turn, turn);
        obey();
    }
}

/* --- the conductor -------------------------------------------------------------------------- */

static void wait_for_done(uint32_t count)
{
    uint32_t done;
    while ((done = atomic_load(&order->done)) < count)
        wait_while(&order->done, done);
    atomic_store(&order->done, 0);
}

static void start(int index)
{
    /* The child is the init of a new PID namespace. */
    long pid = syscall(SYS_clone, (long)(CLONE_NEWPID | SIGCHLD), 0L, 0L, 0L, 0L);
    if (pid < 0)
        fail("clone");
    if (!pid)
        be_container(&containers[index]);
}

static void forget_order(void)
{
    order->batch = 0;
    order->pause_usec = 0;
    order->until_ns = 0;
    order->keep_line = 0;
    atomic_store(&order->reads, 0);
    atomic_store(&order->switches, 0);
    atomic_store(&order->samples, 0);
}

static void take_turns(int first, int count, int turns)
{
    uint64_t begun_ns = now_ns();
    for (int turn = 0; turn < turns; turn++)
        for (int index = first; index < first + count; index++) {
            wake(&containers[index].turn);
            wait_for_done(1);
        }
    uint32_t samples = atomic_load(&order->samples);
    if (samples > MOST_SAMPLES)
        samples = MOST_SAMPLES;
    printf("%llu %llu", (unsigned long long)(now_ns() - begun_ns),
           (unsigned long long)atomic_load(&order->switches));
    for (uint32_t i = 0; i < samples; i++)
        printf(" %llu", (unsigned long long)order->took_ns[i]);
    puts("");
}

static void rush(int count, long msec)
{
    uint64_t begun_ns = now_ns();
    order->until_ns = begun_ns + (uint64_t)msec * 1000000;
    for (int index = 0; index < count; index++)
        wake(&containers[index].turn);
    wait_for_done(count);
    printf("%llu %llu\n", (unsigned long long)(now_ns() - begun_ns),
           (unsigned long long)atomic_load(&order->reads));
}

static void conduct(const char *line)
{
    int first, count, turns;
    long msec;
    forget_order();
    if (sscanf(line, "read %511s %d %d %d %d %ld", order->path, &first, &count, &turns,
               &order->batch, &order->pause_usec) == 6 &&
        first >= 0 && first + count <= container_count)
        take_turns(first, count, turns);
    else if (sscanf(line, "rush %511s %d %ld", order->path, &count, &msec) == 3 &&
             count <= container_count)
        rush(count, msec);
    else if (sscanf(line, "first %511s %d", order->path, &first) == 2 && first < container_count) {
        order->batch = order->keep_line = 1;
        wake(&containers[first].turn);
        wait_for_done(1);
        printf("%s\n", order->line);
    } else {
        errno = EINVAL;
        fail(line);
    }
}

static void describe(const char *line)
{
    struct container one = {.threads = 1};
    if (!strncmp(line, "shared", 6))
        is_shared = 1;
    else if (hierarchy_count < MOST_HIERARCHIES &&
             sscanf(line, "hierarchy %511s", hierarchies[hierarchy_count]) == 1)
        hierarchy_count++;
    else if (bind_count < MOST_BINDS &&
             sscanf(line, "bind %511s %511s", sources[bind_count], targets[bind_count]) == 2)
        bind_count++;
    else if (container_count < most_containers &&
             sscanf(line, "container %127s %d", one.cgroup, &one.threads) == 2)
        containers[container_count++] = one;
    else {
        errno = EINVAL;
        fail(line);
    }
}

static void end_if_one_ends(int signal)
{
    (void)signal;
    _exit(FAILED);
}

int main(int argc, char **argv)
{
    static char line[2 * PATH_BYTES];
    if (argc != 2)
        return FAILED;
    most_containers = atoi(argv[1]);
    containers = share(sizeof *containers * (size_t)most_containers);
    order = share(sizeof *order);
    while (fgets(line, sizeof line, stdin) && strcmp(line, "begin\n"))
        describe(line);
    if (is_shared)
        bind_all();
    signal(SIGCHLD, end_if_one_ends);
    for (int index = 0; index < container_count; index++)
        start(index);
    wait_for_done(container_count);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        conduct(line);
        fflush(stdout);
    }
    return 0;
}
