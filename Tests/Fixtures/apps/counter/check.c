// What http_parse promises.
#include "http.h"

#include <stdio.h>
#include <string.h>

static int failures;

static void expect(const char *what, int holds) {
    if (holds) return;
    failures++;
    fprintf(stderr, "FAILED: %s\n", what);
}

int main(void) {
    struct request r;
    const char *plain = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    expect("a plain GET is read to its end", http_parse(plain, strlen(plain), &r) == (long)strlen(plain));
    expect("its path and keep-alive", !strcmp(r.path, "/") && r.keep_alive && !r.head);
    expect("half a request waits for more", http_parse(plain, strlen(plain) - 1, &r) == 0);
    const char *closing = "HEAD /hit HTTP/1.1\r\nconnection: close\r\n\r\n";
    expect("HEAD and close", http_parse(closing, strlen(closing), &r) > 0 && r.head && !r.keep_alive && !strcmp(r.path, "/hit"));
    const char *old = "GET / HTTP/1.0\r\n\r\n";
    expect("HTTP/1.0 closes", http_parse(old, strlen(old), &r) > 0 && !r.keep_alive);
    const char *two = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    long first = http_parse(two, strlen(two), &r);
    expect("two in one packet are two", first > 0 && http_parse(two + first, strlen(two) - (size_t)first, &r) > 0 && !strcmp(r.path, "/b"));
    const char *post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    expect("POST is refused", http_parse(post, strlen(post), &r) == -1);
    const char *body = "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    expect("a body is refused", http_parse(body, strlen(body), &r) == -1);
    const char *noise = "\x16\x03\x01 noise\r\n\r\n";
    expect("noise is refused", http_parse(noise, strlen(noise), &r) == -1);
    if (failures == 0) puts("counter: all checks passed");
    return failures != 0;
}
