// What Linux offers and Swift cannot call directly: starting a process with full control between "vfork" and exec, process
// descriptors, and opening a path that may not leave its directory. Nothing here allocates memory that the caller must free,
// and nothing keeps state.
#ifndef CSYS_H
#define CSYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// One resource limit: `value` is the soft one, `maximum` the hard one. `resource` is an RLIMIT_… number.
struct csys_limit {
    int resource;
    uint64_t value;
    uint64_t maximum;
};

/// Where a spawn failed. The order is the order in which the child works.
enum csys_step {
    CSYS_STEP_NONE = 0,
    CSYS_STEP_CLONE,
    CSYS_STEP_SESSION,
    CSYS_STEP_CGROUP,
    CSYS_STEP_OOM,
    CSYS_STEP_LIMIT,
    CSYS_STEP_BOUNDING_SET,
    CSYS_STEP_GROUPS,
    CSYS_STEP_USER,
    CSYS_STEP_NO_NEW_PRIVILEGES,
    CSYS_STEP_DIRECTORY,
    CSYS_STEP_DESCRIPTORS,
    CSYS_STEP_SIGNALS,
    CSYS_STEP_EXEC
};

/// A process to start. Every pointer must stay valid until `csys_spawn` returns; zero and NULL mean "leave as it is".
struct csys_spawn_order {
    /// The executable, as a path: PATH is not searched.
    const char *path;
    /// NULL-terminated.
    char *const *argv;
    char *const *envp;
    /// Points into one string of `envp`, just after "LISTEN_PID=", with room for 11 bytes; the child writes its own pid there.
    char *listen_pid;
    /// The child's descriptor i becomes a copy of descriptors[i]; all others are closed.
    const int *descriptors;
    int descriptor_count;
    /// Opened for writing: files cgroup.procs of the groups to join.
    const int *cgroups;
    int cgroup_count;
    const struct csys_limit *limits;
    int limit_count;
    /// The working directory, entered as the new user.
    const char *directory;
    /// Start a session of its own, whose id is the child's pid.
    bool new_session;
    /// Lead a process group of its own, in the caller's session.
    bool new_group;
    /// Become this user and group with no supplementary groups, and drop every capability and the bounding set.
    bool change_user;
    uid_t uid;
    gid_t gid;
    /// With `change_user`: take these supplementary groups, and leave capabilities and the bounding set to the kernel's usual rules.
    bool ordinary_user;
    const gid_t *groups;
    int group_count;
    bool no_new_privileges;
    /// The file mode creation mask; negative: leave it.
    int umask;
    bool set_oom_score;
    int oom_score;
    bool set_nice;
    int nice;
};

/// The outcome: a pid and a process descriptor (close-on-exec, owned by the caller), or the step that failed and its errno.
struct csys_spawned {
    pid_t pid;
    int pidfd;
    enum csys_step step;
    int error;
};

/// Starts a process with vfork semantics: the cost does not depend on the caller's memory, and a failure in the child, even of
/// exec, is reported here. A child that failed has been waited for.
struct csys_spawned csys_spawn(const struct csys_spawn_order *what);

/// A descriptor of a running process, child or not; -1 with errno.
int csys_pidfd_open(pid_t pid);
/// Sends a signal through a process descriptor; -1 with errno.
int csys_pidfd_send_signal(int pidfd, int signal);
/// Waits in poll(2) until the process has ended or `milliseconds` are over (negative: for ever). 1 ended, 0 not, -1 with errno.
int csys_pidfd_wait(int pidfd, int milliseconds);

/// How a child ended.
struct csys_exit {
    pid_t pid;
    /// Exit status, or the signal's number when `by_signal`.
    int status;
    bool by_signal;
    bool dumped_core;
};
/// Waits until some child has ended, without collecting it. 0, or -1 with errno (ECHILD: there is none).
int csys_wait_any(struct csys_exit *ended);
/// Collects this child when it has ended. 1 collected, 0 still running, -1 with errno.
int csys_collect(pid_t pid, struct csys_exit *ended);

/// Collects any child that has ended. 1 collected, 0 none has ended, -1 with errno (ECHILD: there is none).
int csys_collect_any(struct csys_exit *ended);

/// Goes on as a daemon: in a new process that leads a session, with 0, 1 and 2 on /dev/null, while this one exits with 0. Only for a
/// process with one thread. 0, or -1 with errno.
int csys_daemonize(void);

/// Closes every descriptor from `first` on. 0, or -1 with errno.
int csys_close_from(int first);

/// Blocks these signals for this thread and gives a descriptor from which they are read (signalfd(2)); -1 with errno.
int csys_signals(const int *signals, int count);
/// The next signal that waits; 0 when none does.
int csys_next_signal(int fd);

/// epoll(7), level-triggered. `events`: 1 to read, 2 to write; 0 leaves only errors and hang-ups.
struct csys_ready {
    int fd;
    /// 1 can be read or has hung up, 2 can be written or has failed.
    int events;
};
int csys_epoll_create(void);
int csys_epoll_add(int epoll, int fd, int events);
int csys_epoll_change(int epoll, int fd, int events);
int csys_epoll_remove(int epoll, int fd);
/// Waits `milliseconds` at most (negative: for ever); how many are ready, 0 also after a signal, -1 with errno.
int csys_epoll_wait(int epoll, struct csys_ready *ready, int count, int milliseconds);

/// memfd_create(2), close-on-exec; -1 with errno.
int csys_memory_file(const char *name);

/// A connection of a listening socket, close-on-exec and not blocking; -1 with errno.
int csys_accept(int listener);

/// pipe(2), close-on-exec. 0, or -1 with errno.
int csys_pipe(int ends[2]);
/// Makes a descriptor not block, or sets a pipe's size. 0, or -1 with errno.
int csys_set_nonblocking(int fd);
int csys_set_pipe_size(int fd, int bytes);

/// Orphans of this process's descendants become its children. 0, or -1 with errno.
int csys_set_child_subreaper(void);

/// openat2(2) that neither leaves `directory` nor follows a symbolic link anywhere on the way; -1 with errno. Always close-on-exec.
int csys_open_beneath(int directory, const char *path, int flags, mode_t mode);

/// open(2) for reading and writing without the page cache (O_DIRECT), close-on-exec; -1 with errno, EINVAL where the file system cannot.
int csys_open_direct(const char *path);

/// eventfd(2): a counter to wake a thread with, close-on-exec and not blocking; -1 with errno.
int csys_eventfd(void);

/// inotify(7): a descriptor (close-on-exec, not blocking); a watch for modifications of one file; the same without one.
int csys_inotify_create(void);
int csys_inotify_watch_writes(int inotify, const char *path);
int csys_inotify_forget(int inotify, int watch);
/// Reads waiting events; fills `watches` with at most `count` watch numbers (repeats possible); 0 when nothing waits, -1 with errno.
/// A negative number in the list says that events were lost.
int csys_inotify_read(int inotify, int *watches, int count);

/// CRC-32C (Castagnoli) of a buffer, by the processor's own instruction where it has one.
uint32_t csys_crc32c(const void *bytes, size_t count);
/// The same from tables, for processors without it.
uint32_t csys_crc32c_portable(const void *bytes, size_t count);

/// Writes everything of the file system that holds `fd` to the device: syncfs(2). 0, or -1 with errno.
int csys_sync_filesystem(int fd);

#endif
