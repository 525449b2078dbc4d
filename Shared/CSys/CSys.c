#define _GNU_SOURCE
#include "include/CSys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

// The child runs on a stack of its own in the parent's memory, while the calling thread sleeps in the kernel (CLONE_VFORK). It may
// therefore only make system calls, and none of glibc's wrappers that talk to the other threads: glibc's setuid would signal every
// thread of the parent, so the identity calls below are raw.

struct job {
    const struct csys_spawn_order *what;
    sigset_t mask;
    enum csys_step step;
    int error;
};

static int stop_at(struct job *job, enum csys_step step) {
    job->step = step;
    job->error = errno;
    _exit(127);
}

static void write_pid(char *at, long pid) {
    char digits[12];
    int count = 0;
    do {
        digits[count++] = (char)('0' + pid % 10);
        pid /= 10;
    } while (pid > 0);
    while (count > 0) *at++ = digits[--count];
    *at = 0;
}

static int write_oom_score(int score) {
    char text[8];
    size_t length = 0;
    unsigned magnitude = score < 0 ? (unsigned)-score : (unsigned)score;
    if (magnitude > 1000) {
        errno = EINVAL;
        return -1;
    }
    if (score < 0) text[length++] = '-';
    char digits[4];
    int count = 0;
    do {
        digits[count++] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    while (count > 0) text[length++] = digits[--count];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, text, length);
    int error = errno;
    close(fd);
    errno = error;
    return written == (ssize_t)length ? 0 : -1;
}

static int become(const struct csys_spawn_order *what, struct job *job) {
    if (what->ordinary_user) {
        if (syscall(SYS_setgroups, (size_t)what->group_count, what->groups) != 0) return stop_at(job, CSYS_STEP_GROUPS);
        if (syscall(SYS_setresgid, what->gid, what->gid, what->gid) != 0) return stop_at(job, CSYS_STEP_GROUPS);
        if (syscall(SYS_setresuid, what->uid, what->uid, what->uid) != 0) return stop_at(job, CSYS_STEP_USER);
        return 0;
    }
    // The bounding set can only be emptied while CAP_SETPCAP is still held; EINVAL marks the end of the known capabilities.
    for (int cap = 0; cap <= 63; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
            if (errno == EINVAL) break;
            return stop_at(job, CSYS_STEP_BOUNDING_SET);
        }
    }
    if (syscall(SYS_setgroups, 0, NULL) != 0) return stop_at(job, CSYS_STEP_GROUPS);
    if (syscall(SYS_setresgid, what->gid, what->gid, what->gid) != 0) return stop_at(job, CSYS_STEP_GROUPS);
    if (syscall(SYS_setresuid, what->uid, what->uid, what->uid) != 0) return stop_at(job, CSYS_STEP_USER);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    if (syscall(SYS_capset, &header, none) != 0) return stop_at(job, CSYS_STEP_USER);
    return 0;
}

int csys_close_from(int first) {
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0) == 0) return 0;
    if (errno != ENOSYS) return -1;
    // A kernel before 5.9: one by one, as far as the limit says.
    struct rlimit limit;
    int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1048576 ? (int)limit.rlim_cur : 1048576;
    for (int fd = first; fd < end; fd++) close(fd);
    return 0;
}

static int arrange_descriptors(const struct csys_spawn_order *what, struct job *job) {
    int count = what->descriptor_count;
    int moved[64];
    if (count > 64) {
        errno = EMFILE;
        return stop_at(job, CSYS_STEP_DESCRIPTORS);
    }
    // First out of the way of the numbers that are about to be filled, then into place.
    for (int i = 0; i < count; i++) {
        moved[i] = fcntl(what->descriptors[i], F_DUPFD_CLOEXEC, count);
        if (moved[i] < 0) return stop_at(job, CSYS_STEP_DESCRIPTORS);
    }
    for (int i = 0; i < count; i++) {
        if (dup2(moved[i], i) < 0) return stop_at(job, CSYS_STEP_DESCRIPTORS);
    }
    if (csys_close_from(count) != 0) return stop_at(job, CSYS_STEP_DESCRIPTORS);
    return 0;
}

static int child(void *context) {
    struct job *job = context;
    const struct csys_spawn_order *what = job->what;
    if (what->new_session && setsid() < 0) return stop_at(job, CSYS_STEP_SESSION);
    if (what->new_group && setpgid(0, 0) < 0) return stop_at(job, CSYS_STEP_SESSION);
    for (int i = 0; i < what->cgroup_count; i++) {
        // "0" means the process that writes it.
        if (write(what->cgroups[i], "0", 1) != 1) return stop_at(job, CSYS_STEP_CGROUP);
    }
    if (what->set_oom_score && write_oom_score(what->oom_score) != 0) return stop_at(job, CSYS_STEP_OOM);
    // Limits before the descriptors are moved would make a low RLIMIT_NOFILE refuse the move.
    if (what->descriptor_count > 0) arrange_descriptors(what, job);
    for (int i = 0; i < what->limit_count; i++) {
        struct rlimit limit = {what->limits[i].value, what->limits[i].maximum};
        if (setrlimit((__rlimit_resource_t)what->limits[i].resource, &limit) != 0) return stop_at(job, CSYS_STEP_LIMIT);
    }
    if (what->set_nice && setpriority(PRIO_PROCESS, 0, what->nice) != 0) return stop_at(job, CSYS_STEP_LIMIT);
    if (what->umask >= 0) umask((mode_t)what->umask);
    if (what->change_user) become(what, job);
    if (what->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return stop_at(job, CSYS_STEP_NO_NEW_PRIVILEGES);
    }
    if (what->directory != NULL && chdir(what->directory) != 0) return stop_at(job, CSYS_STEP_DIRECTORY);
    if (what->listen_pid != NULL) write_pid(what->listen_pid, syscall(SYS_getpid));
    // Handlers must be gone before a signal may arrive: they would run in the parent's memory. Ignored signals (SIGPIPE in every
    // server) would be inherited through exec.
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int signal = 1; signal < 65; signal++) {
        if (signal != SIGKILL && signal != SIGSTOP) sigaction(signal, &standard, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0) return stop_at(job, CSYS_STEP_SIGNALS);
    execve(what->path, what->argv, what->envp);
    return stop_at(job, CSYS_STEP_EXEC);
}

struct csys_spawned csys_spawn(const struct csys_spawn_order *what) {
    struct csys_spawned result = {-1, -1, CSYS_STEP_NONE, 0};
    struct job job = {.what = what, .step = CSYS_STEP_NONE, .error = 0};
    const size_t size = 128 * 1024;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        result.step = CSYS_STEP_CLONE;
        result.error = errno;
        return result;
    }
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &job.mask);
    int pidfd = -1;
    int pid = clone(child, stack + size, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &job, &pidfd);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &job.mask, NULL);
    munmap(stack, size);
    if (pid < 0) {
        result.step = CSYS_STEP_CLONE;
        result.error = error;
        return result;
    }
    if (job.step != CSYS_STEP_NONE) {
        siginfo_t info;
        while (waitid(P_PID, (id_t)pid, &info, WEXITED) != 0 && errno == EINTR) {}
        close(pidfd);
        result.step = job.step;
        result.error = job.error;
        return result;
    }
    result.pid = pid;
    result.pidfd = pidfd;
    return result;
}

int csys_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int csys_pidfd_send_signal(int pidfd, int signal) { return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0); }

int csys_pidfd_wait(int pidfd, int milliseconds) {
    struct pollfd item = {pidfd, POLLIN, 0};
    int ready = poll(&item, 1, milliseconds);
    if (ready < 0 && errno == EINTR) return 0;
    return ready > 0 ? 1 : ready;
}

static void fill(struct csys_exit *ended, const siginfo_t *info) {
    ended->pid = info->si_pid;
    ended->status = info->si_status;
    ended->by_signal = info->si_code != CLD_EXITED;
    ended->dumped_core = info->si_code == CLD_DUMPED;
}

int csys_wait_any(struct csys_exit *ended) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    for (;;) {
        if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0) break;
        if (errno != EINTR) return -1;
    }
    fill(ended, &info);
    return 0;
}

int csys_collect(pid_t pid, struct csys_exit *ended) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG) != 0) {
        if (errno != EINTR) return -1;
    }
    if (info.si_pid == 0) return 0;
    fill(ended, &info);
    return 1;
}

int csys_collect_any(struct csys_exit *ended) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0) {
        if (errno != EINTR) return -1;
    }
    if (info.si_pid == 0) return 0;
    fill(ended, &info);
    return 1;
}

int csys_daemonize(void) {
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid > 0) _exit(0);
    if (setsid() < 0) return -1;
    int null = open("/dev/null", O_RDWR);
    if (null < 0) return -1;
    for (int fd = 0; fd < 3; fd++) {
        if (null != fd && dup2(null, fd) < 0) return -1;
    }
    if (null > 2) close(null);
    return 0;
}

int csys_signals(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int csys_next_signal(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

static uint32_t epoll_events(int events) { return (events & 1 ? (uint32_t)EPOLLIN : 0) | (events & 2 ? (uint32_t)EPOLLOUT : 0); }

int csys_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

int csys_epoll_add(int epoll, int fd, int events) {
    struct epoll_event event = {.events = epoll_events(events), .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int csys_epoll_change(int epoll, int fd, int events) {
    struct epoll_event event = {.events = epoll_events(events), .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

int csys_epoll_remove(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); }

int csys_epoll_wait(int epoll, struct csys_ready *ready, int count, int milliseconds) {
    struct epoll_event events[256];
    if (count > 256) count = 256;
    int found = epoll_wait(epoll, events, count, milliseconds);
    if (found < 0) return errno == EINTR ? 0 : -1;
    for (int i = 0; i < found; i++) {
        ready[i].fd = events[i].data.fd;
        ready[i].events =
            (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? 1 : 0) | (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP) ? 2 : 0);
    }
    return found;
}

int csys_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int csys_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

int csys_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int csys_set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int csys_set_pipe_size(int fd, int bytes) { return fcntl(fd, F_SETPIPE_SZ, bytes) < 0 ? -1 : 0; }

int csys_set_child_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

int csys_open_beneath(int directory, const char *path, int flags, mode_t mode) {
    struct open_how how;
    memset(&how, 0, sizeof how);
    how.flags = (uint64_t)(flags | O_CLOEXEC);
    if (flags & (O_CREAT | __O_TMPFILE)) how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    for (int attempt = 0;; attempt++) {
        int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
        // EAGAIN: a rename elsewhere raced with the walk; the kernel asks to try again.
        if (fd >= 0 || errno != EAGAIN || attempt > 100) return fd;
    }
}

int csys_open_direct(const char *path) { return open(path, O_RDWR | O_CLOEXEC | O_DIRECT); }

int csys_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int csys_inotify_create(void) { return inotify_init1(IN_CLOEXEC | IN_NONBLOCK); }

int csys_inotify_watch_writes(int inotify, const char *path) { return inotify_add_watch(inotify, path, IN_MODIFY); }

int csys_inotify_forget(int inotify, int watch) { return inotify_rm_watch(inotify, watch); }

int csys_inotify_read(int inotify, int *watches, int count) {
    _Alignas(struct inotify_event) char buffer[8192];
    ssize_t length = read(inotify, buffer, sizeof buffer);
    if (length < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    int filled = 0;
    for (char *at = buffer; at < buffer + length && filled < count;) {
        const struct inotify_event *event = (const struct inotify_event *)(const void *)at;
        int watch = (event->mask & IN_Q_OVERFLOW) ? -1 : event->wd;
        // A busy file gives long runs of the same watch.
        if (filled == 0 || watches[filled - 1] != watch) watches[filled++] = watch;
        at += sizeof(struct inotify_event) + event->len;
    }
    return filled;
}

int csys_sync_filesystem(int fd) { return syncfs(fd); }

// Eight tables, so that eight bytes are taken at a time: table k holds the effect of a byte that k more bytes follow.
static uint32_t crc_tables[8][256];

static void make_crc_tables(void) {
    for (uint32_t index = 0; index < 256; index++) {
        uint32_t crc = index;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78U : 0);
        crc_tables[0][index] = crc;
    }
    for (int table = 1; table < 8; table++) {
        for (int index = 0; index < 256; index++) {
            uint32_t shorter = crc_tables[table - 1][index];
            crc_tables[table][index] = (shorter >> 8) ^ crc_tables[0][shorter & 0xFF];
        }
    }
}

static uint32_t crc_by_table(uint32_t crc, const unsigned char *at, size_t count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_crc_tables);
    for (; count >= 8; count -= 8, at += 8) {
        uint32_t low = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
        crc = crc_tables[7][low & 0xFF] ^ crc_tables[6][low >> 8 & 0xFF] ^ crc_tables[5][low >> 16 & 0xFF] ^ crc_tables[4][low >> 24] ^
              crc_tables[3][at[4]] ^ crc_tables[2][at[5]] ^ crc_tables[1][at[6]] ^ crc_tables[0][at[7]];
    }
    for (; count > 0; count--) crc = (crc >> 8) ^ crc_tables[0][(crc ^ *at++) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *at, size_t count) {
    uint64_t wide = crc;
    for (; count >= 8; count -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count > 0; count--) crc = __builtin_ia32_crc32qi(crc, *at++);
    return crc;
}
#endif

uint32_t csys_crc32c(const void *bytes, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc_by_instruction(~0U, bytes, count);
#endif
    return csys_crc32c_portable(bytes, count);
}

uint32_t csys_crc32c_portable(const void *bytes, size_t count) { return ~crc_by_table(~0U, bytes, count); }
