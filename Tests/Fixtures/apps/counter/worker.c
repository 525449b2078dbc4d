// Hits `web` every 200 ms, over a connection of its own each time, so that it follows when web moves.
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

// The count that web answers, -1 when it cannot be reached.
static long hit(const char *host, const char *port) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found)) return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    long result = -1;
    char bytes[1024];
    int length = snprintf(bytes, sizeof bytes, "GET /hit HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    if (!connect(fd, found->ai_addr, found->ai_addrlen) && send(fd, bytes, (size_t)length, MSG_NOSIGNAL) == length) {
        size_t got = 0;
        ssize_t more;
        while (got < sizeof bytes - 1 && (more = recv(fd, bytes + got, sizeof bytes - 1 - got, 0)) > 0) got += (size_t)more;
        bytes[got] = 0;
        char *body = strstr(bytes, "\r\n\r\n");
        if (!strncmp(bytes, "HTTP/1.1 200", 12) && body) result = atol(body + 4);
    }
    freeaddrinfo(found);
    close(fd);
    return result;
}

int main(void) {
    const char *host = getenv("WEB_HOST"), *port = getenv("WEB_PORT_HTTP");
    if (!host || !port) {
        fprintf(stderr, "counter worker: WEB_HOST and WEB_PORT_HTTP are not set; does this service need web?\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    printf("counter worker follows %s:%s\n", host, port);
    fflush(stdout);
    long last = -1;
    for (int reachable = -1; !stopping;) {
        long now = hit(host, port);
        if ((now >= 0) != reachable) {
            // Only changes are worth a line.
            reachable = now >= 0;
            printf(reachable ? "web answers: %ld\n" : "web does not answer\n", now);
            fflush(stdout);
        }
        if (now >= 0) last = now;
        nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
    }
    printf("counter worker is done at %ld\n", last);
    return 0;
}
