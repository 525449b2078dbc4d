#include "http.h"

#include <string.h>
#include <strings.h>

long http_parse(const char *bytes, size_t length, struct request *request) {
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t size = (size_t)(end - bytes) + 4;
    const char *path;
    if (length >= 4 && !memcmp(bytes, "GET ", 4)) {
        path = bytes + 4;
        request->head = 0;
    } else if (length >= 5 && !memcmp(bytes, "HEAD ", 5)) {
        path = bytes + 5;
        request->head = 1;
    } else {
        return -1;
    }
    const char *space = memchr(path, ' ', (size_t)(end - path));
    if (!space || *path != '/' || (size_t)(space - path) >= sizeof request->path) return -1;
    memcpy(request->path, path, (size_t)(space - path));
    request->path[space - path] = 0;
    if ((size_t)(end - space) < 9 || memcmp(space, " HTTP/1.", 8)) return -1;
    request->keep_alive = space[8] == '1';
    for (const char *line = memchr(space, '\n', (size_t)(end - space)); line; line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if ((size_t)(end - line) >= 17 && !strncasecmp(line, "Connection: close", 17)) request->keep_alive = 0;
        // A body would be taken for the next request.
        if ((size_t)(end - line) >= 15 && !strncasecmp(line, "Content-Length:", 15) && !memmem(line, (size_t)(end - line), ": 0", 3)) return -1;
        if ((size_t)(end - line) >= 18 && !strncasecmp(line, "Transfer-Encoding:", 18)) return -1;
    }
    return (long)size;
}
