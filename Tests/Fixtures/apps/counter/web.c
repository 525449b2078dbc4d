// Counts. One thread, one poll loop; every answer is short enough for one write.
//
// On SIGTERM it stops listening, answers what has already reached it, and exits with 0.
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 512, BUFFER = 8192, IDLE_SECONDS = 60 };

struct connection {
    int fd;
    size_t length;
    time_t used;
    char bytes[BUFFER];
};

static struct connection connections[CONNECTIONS];
static int open_count;
static volatile sig_atomic_t stopping;
static unsigned long count;
static char version[64] = "unknown";

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static time_t seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

// 0 when the connection is over.
static int answer(int fd, const struct request *request) {
    char body[128], head[256];
    int status = 200;
    if (!strcmp(request->path, "/")) {
        snprintf(body, sizeof body, "counter %s\ncount %lu\n", version, count);
    } else if (!strcmp(request->path, "/hit")) {
        snprintf(body, sizeof body, "%lu\n", ++count);
    } else if (!strcmp(request->path, "/healthz")) {
        snprintf(body, sizeof body, "ok\n");
    } else {
        status = 404;
        snprintf(body, sizeof body, "there is nothing here\n");
    }
    int keep = request->keep_alive && !stopping;
    int length = snprintf(
        head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s", status,
        status == 200 ? "OK" : "Not Found", strlen(body), keep ? "" : "Connection: close\r\n", request->head ? "" : body);
    return send(fd, head, (size_t)length, MSG_NOSIGNAL) == length && keep;
}

static void end(int index) {
    close(connections[index].fd);
    connections[index] = connections[--open_count];
}

// Reads what is there and answers it; 0 when the connection is over.
static int serve(struct connection *c) {
    ssize_t got = recv(c->fd, c->bytes + c->length, BUFFER - c->length, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    c->length += (size_t)got;
    c->used = seconds();
    struct request request;
    long taken;
    while ((taken = http_parse(c->bytes, c->length, &request)) > 0) {
        memmove(c->bytes, c->bytes + taken, c->length - (size_t)taken);
        c->length -= (size_t)taken;
        if (!answer(c->fd, &request)) return 0;
    }
    if (taken < 0 || c->length == BUFFER) {
        static const char refused[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        if (send(c->fd, refused, sizeof refused - 1, MSG_NOSIGNAL) < 0) return 0;
        return 0;
    }
    return 1;
}

static void take(int listener) {
    while (open_count < CONNECTIONS) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) return;
        connections[open_count++] = (struct connection){.fd = fd, .used = seconds()};
    }
}

static int listen_on(const char *host, int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 128)) return -1;
    return fd;
}

int main(void) {
    const char *host = getenv("HOST") ? getenv("HOST") : "127.0.0.1";
    int port = getenv("PORT") ? atoi(getenv("PORT")) : 8080;
    FILE *file = fopen("VERSION", "r");
    if (file) {
        if (fgets(version, sizeof version, file)) version[strcspn(version, "\n")] = 0;
        fclose(file);
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    // Signals arrive only while ppoll waits, so none is missed between the look at the flag and the wait.
    sigset_t blocked, waiting;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
    int listener = listen_on(host, port);
    if (listener < 0) {
        fprintf(stderr, "counter web: cannot listen on %s:%d: %s\n", host, port, strerror(errno));
        return 1;
    }
    printf("counter web %s listens on %s:%d\n", version, host, port);
    fflush(stdout);
    while (!stopping) {
        struct pollfd items[CONNECTIONS + 1];
        for (int i = 0; i < open_count; i++) items[i] = (struct pollfd){.fd = connections[i].fd, .events = POLLIN};
        int polled = open_count;
        items[polled] = (struct pollfd){.fd = listener, .events = open_count < CONNECTIONS ? POLLIN : 0};
        struct timespec wait = {.tv_sec = 5};
        if (ppoll(items, (nfds_t)polled + 1, &wait, &waiting) < 0) continue;
        // From the last to the first: ending one moves the last into its place.
        for (int i = polled - 1; i >= 0; i--) {
            if (items[i].revents ? !serve(&connections[i]) : seconds() - connections[i].used > IDLE_SECONDS) end(i);
        }
        if (items[polled].revents) take(listener);
    }
    take(listener);
    close(listener);
    for (int i = open_count - 1; i >= 0; i--) {
        serve(&connections[i]);
        end(i);
    }
    printf("counter web %s is done after %lu\n", version, count);
    return 0;
}
