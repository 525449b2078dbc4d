#ifndef HTTP_H
#define HTTP_H

#include <stddef.h>

// The head of a GET or HEAD request.
struct request {
    char path[256];
    int head;        // HEAD: no body in the answer
    int keep_alive;  // the connection stays open after the answer
};

// Reads one request from the start of `bytes`. Returns how many bytes it took, 0 when more must come first, -1 when this is no
// request that we answer.
long http_parse(const char *bytes, size_t length, struct request *request);

#endif
