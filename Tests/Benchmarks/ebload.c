// Load for the bus, speaking EB/1 as docs/wire.md has it: HELLO, packed PUB within the window, PUBACK, SUB with credit, ACK,
// REQ and REP. One JSON line on standard output, with the members that ../shared/bench/bus prints, counted in the same way:
// `thr` from the first event sent to the last one acknowledged, `deliv` from the first one sent to the last one received by all.
//
//   gcc -O2 -Wall -Wextra -o ebload ebload.c -lzmq -lpthread
//   ebload --key FILE [--mode load|rtt|replay|hold|pause|join] …
//
//   load    --n events by --pubs publishers (1), each with --win unacknowledged (1024) and up to --pack in a message (16), to
//           --subs subscribers (1), each in a context of its own. --durable 1: with a name and ACK. --rate: events a second.
//   rtt     --n queries, one after the other, to a service that another connection serves
//   replay  one subscriber reads --n events from number --from (1; -N: the last N numbers); --seconds S: again and again so long
//   hold    --subs sessions that say no more than heartbeats for --seconds: each with a durable subscription from number --from,
//           given --credit-msgs once and no more, and with --serve 1 a served name
//   pause   one publisher for --seconds that carries on through restarts: the longest time between two acknowledgements
//   join    a session, as soon as there is one: `at`, the monotonic clock in ns, and `last`, the last number in the log
//
// --size 256 (payload), --topic build.finished, --crc 0: do not check records, --plain 1: no CURVE, --endpoint: other than the
// key's, --limit 120: seconds after which it gives up. Whatever is refused, damaged or out of order ends it with status 2.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define DIE(...) do { fprintf(stderr, "ebload: " __VA_ARGS__); fputc('\n', stderr); exit(2); } while (0)
enum { HELLO = 1, WELCOME, PING, PONG, BYE, ERR, PUB = 0x10, PUBACK, SUB = 0x20, SUBOK, EVENTS, CREDIT, ACK,
       LOST = 0x27, SERVE = 0x30, REQ, CALL, PART, REP };
enum { HEADER = 28, ENTRY = 8, RECORD = 32, ID = 36, MOST = 64 };
#define SECOND 1000000000ull

// MARK: Small things

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}
static uint32_t since(uint64_t then, uint64_t now) { return now - then > UINT32_MAX ? UINT32_MAX : (uint32_t)(now - then); }
static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static double microseconds(const uint32_t *sorted, size_t n, double part) {
    return n ? sorted[(size_t)(part * (double)(n - 1) + 0.5)] / 1000.0 : 0;
}
static void put16(uint8_t *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
static uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static void put_hex(char *p, uint64_t v, int digits) {
    while (digits--) p[digits] = "0123456789abcdef"[v & 15], v >>= 4;
}
static uint64_t get_hex(const uint8_t *p, int digits) {
    uint64_t v = 0;
    for (; digits--; p++) v = v << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    return v;
}

// CRC32C (Castagnoli), with the processor's instruction where there is one.
static uint32_t crc_table[256];
static void crc_prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
        crc_table[i] = c;
    }
}
static uint32_t crc_plain(const uint8_t *p, size_t n) {
    uint32_t c = ~0u;
    while (n--) c = crc_table[(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}
#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc_quick(const uint8_t *p, size_t n) {
    uint64_t c = UINT32_MAX, v;
    for (; n >= 8; n -= 8, p += 8) memcpy(&v, p, 8), c = __builtin_ia32_crc32di(c, v);
    for (; n; n--) c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return ~(uint32_t)c;
}
static uint32_t crc32c(const uint8_t *p, size_t n) { return __builtin_cpu_supports("sse4.2") ? crc_quick(p, n) : crc_plain(p, n); }
#else
static uint32_t crc32c(const uint8_t *p, size_t n) { return crc_plain(p, n); }
#endif

static int argc_;
static char **argv_;
static const char *arg(const char *name, const char *otherwise) {
    for (int i = 1; i + 1 < argc_; i += 2)
        if (!strcmp(argv_[i], name)) return argv_[i + 1];
    return otherwise;
}
static long number(const char *name, long otherwise) {
    const char *text = arg(name, NULL);
    return text ? strtol(text, NULL, 10) : otherwise;
}

/// The value of a member of a flat JSON object, good enough for key files and the bus's answers.
static const char *member(const char *json, const char *name) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *p = strstr(json, quoted);
    if (!p) DIE("no member %s in %s", quoted, strstr(json, "secret") ? "the key file" : json);
    p += strlen(quoted);
    return p + strspn(p, " :\t\r\n");
}
static void text_member(const char *json, const char *name, char *out, size_t size) {
    const char *p = member(json, name);
    size_t n = *p == '"' ? strcspn(++p, "\"") : 0;
    if (!n || n >= size) DIE("member '%s' is no text of 1 to %zu characters", name, size - 1);
    // The only escape in such a value is a slash.
    char *to = out;
    for (size_t i = 0; i < n; i++)
        if (p[i] != '\\') *to++ = p[i];
    *to = 0;
}

// MARK: A connection

static char key_name[128], endpoint[256], server_key[41], public_key[41], secret_key[41];
static int plain, check_crc, impatient;

static void read_key(const char *path) {
    char json[4096] = "";
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file || !fread(json, 1, sizeof json - 1, file)) DIE("--key: cannot read %s", path ? path : "nothing");
    fclose(file);
    text_member(json, "name", key_name, sizeof key_name);
    text_member(json, "endpoint", endpoint, sizeof endpoint);
    text_member(json, "serverKey", server_key, sizeof server_key);
    text_member(json, "publicKey", public_key, sizeof public_key);
    text_member(json, "secretKey", secret_key, sizeof secret_key);
}

struct connection {
    void *context, *socket;
    uint64_t heard, said;
    uint64_t last, outbox_last;
    long window_msgs, window_bytes;
};
enum { HEARTBEAT_MS = 2000 };

static void option(void *socket, int name, int value) {
    if (zmq_setsockopt(socket, name, &value, sizeof value)) DIE("socket option %d: %s", name, zmq_strerror(errno));
}
static void dial(struct connection *c) {
    *c = (struct connection){.context = zmq_ctx_new()};
    c->socket = zmq_socket(c->context, ZMQ_DEALER);
    if (!c->socket) DIE("no socket: %s", zmq_strerror(errno));
    int64_t largest = 1310720;
    zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    option(c->socket, ZMQ_IMMEDIATE, 1);
    option(c->socket, ZMQ_LINGER, 200);
    option(c->socket, ZMQ_SNDHWM, 20000);
    option(c->socket, ZMQ_RCVHWM, 20000);
    option(c->socket, ZMQ_HEARTBEAT_IVL, 1000);
    option(c->socket, ZMQ_HEARTBEAT_TIMEOUT, 3000);
    option(c->socket, ZMQ_HEARTBEAT_TTL, 3000);
    option(c->socket, ZMQ_HANDSHAKE_IVL, 5000);
    option(c->socket, ZMQ_RECONNECT_IVL, impatient ? 5 : 20);
    option(c->socket, ZMQ_RECONNECT_IVL_MAX, impatient ? 0 : 1000);
    option(c->socket, ZMQ_TCP_KEEPALIVE, 1);
    option(c->socket, ZMQ_RCVTIMEO, 500);
    option(c->socket, ZMQ_SNDTIMEO, impatient ? -1 : 10000); // also how long a first connection may take
    if (!plain) {
        zmq_setsockopt(c->socket, ZMQ_CURVE_SERVERKEY, server_key, 41);
        zmq_setsockopt(c->socket, ZMQ_CURVE_PUBLICKEY, public_key, 41);
        if (zmq_setsockopt(c->socket, ZMQ_CURVE_SECRETKEY, secret_key, 41)) DIE("the key file holds no CURVE key");
    }
    if (zmq_connect(c->socket, endpoint)) DIE("connect %s: %s", endpoint, zmq_strerror(errno));
}
static void hang_up(struct connection *c) {
    zmq_close(c->socket);
    zmq_ctx_term(c->context);
}
static uint8_t *begin(zmq_msg_t *message, uint8_t command, uint16_t flags, uint16_t status, uint32_t handle, uint64_t a, uint64_t b, size_t body) {
    zmq_msg_init_size(message, HEADER + body);
    uint8_t *p = zmq_msg_data(message);
    p[0] = 'E', p[1] = 'B', p[2] = 1, p[3] = command;
    put16(p + 4, flags), put16(p + 6, status), put32(p + 8, handle), put64(p + 12, a), put64(p + 20, b);
    return p + HEADER;
}
static void finish(struct connection *c, zmq_msg_t *message, uint64_t now) {
    while (zmq_msg_send(message, c->socket, 0) < 0)
        if (errno != EINTR) DIE("%s takes nothing for 10 s: %s", endpoint, zmq_strerror(errno));
    c->said = now;
}
static void say(struct connection *c, uint8_t command, uint16_t status, uint32_t handle, uint64_t a, uint64_t b, const void *body, size_t size) {
    zmq_msg_t message;
    uint8_t *p = begin(&message, command, 0, status, handle, a, b, size);
    if (size) memcpy(p, body, size);
    finish(c, &message, now_ns());
}
static void heartbeat(struct connection *c, uint64_t now) {
    if (now - c->said >= HEARTBEAT_MS / 2 * (SECOND / 1000)) say(c, PING, 0, 0, 0, 0, NULL, 0);
}
/// The next message that is no heartbeat: its command, or 0 after half a second of silence, or -1 when none waits and `flags`
/// says not to wait. Refusals end the program, unless `lenient`.
static int hear(struct connection *c, zmq_msg_t *message, int flags, int lenient) {
    for (;;) {
        if (zmq_msg_recv(message, c->socket, flags) < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) DIE("receive: %s", zmq_strerror(errno));
            heartbeat(c, now_ns());
            return flags ? -1 : 0;
        }
        const uint8_t *p = zmq_msg_data(message);
        size_t size = zmq_msg_size(message);
        if (size < HEADER || p[0] != 'E' || p[1] != 'B' || p[2] != 1) DIE("%zu bytes that are no EB/1", size);
        c->heard = now_ns();
        if (p[3] == PING) say(c, PONG, 0, 0, get64(p + 12), 0, NULL, 0);
        if (p[3] == PING || p[3] == PONG) continue;
        if ((p[3] == ERR || p[3] == BYE || p[3] == LOST) && !lenient)
            DIE("%s %u for command %02x: %.*s", p[3] == ERR ? "ERR" : p[3] == BYE ? "BYE" : "LOST", get16(p + 6), (unsigned)get64(p + 20),
                (int)(size - HEADER), (const char *)p + HEADER);
        return p[3];
    }
}
static void hello(struct connection *c, const char *outbox) {
    char body[256];
    int n = snprintf(body, sizeof body, "{\"client\":\"ebload\",\"heartbeat_ms\":%d%s%s%s}", HEARTBEAT_MS, outbox ? ",\"outbox\":\"" : "",
        outbox ? outbox : "", outbox ? "\"" : "");
    say(c, HELLO, 0, 0, 0, 0, body, (size_t)n);
}
static void welcome(struct connection *c, zmq_msg_t *message) {
    char json[2048];
    const uint8_t *p = zmq_msg_data(message);
    snprintf(json, sizeof json, "%.*s", (int)(zmq_msg_size(message) - HEADER), (const char *)p + HEADER);
    c->last = get64(p + 20);
    c->window_msgs = strtol(member(json, "window_msgs"), NULL, 10);
    c->window_bytes = strtol(member(json, "window_bytes"), NULL, 10);
    c->outbox_last = strstr(json, "\"outbox_last\"") ? strtoull(member(json, "outbox_last"), NULL, 10) : 0;
}
static void join(struct connection *c, const char *outbox) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    dial(c);
    hello(c, outbox);
    uint64_t deadline = now_ns() + (impatient ? 3600 : 10) * SECOND;
    for (int command; (command = hear(c, &message, 0, 0)) != WELCOME;)
        if (command > 0 || now_ns() > deadline) DIE("no WELCOME from %s", endpoint);
    welcome(c, &message);
    zmq_msg_close(&message);
}

// MARK: Events

static long n, size, win, pack, pubs, subs, seconds;
static const char *topic, *outbox;
static size_t topic_size;
static char *template;
static size_t id_at, time_at;
static char run_id[ID + 1];

/// A small CloudEvent, filled up to `size`. What differs from event to event is overwritten in place: its number in the id
/// (twelve digits at the end of a UUID), and the time as sixteen hexadecimal digits.
static void prepare_payload(void) {
    uint64_t seed = now_ns() ^ (uint64_t)getpid() << 48;
    FILE *random = fopen("/dev/urandom", "r");
    if (random && !fread(&seed, 8, 1, random)) DIE("/dev/urandom gives nothing");
    if (random) fclose(random);
    snprintf(run_id, sizeof run_id, "%08x-%04x-7%03x-8%03x-000000000000", (unsigned)(seed >> 32), (unsigned)(seed >> 16 & 0xffff),
        (unsigned)(seed >> 4 & 0xfff), (unsigned)(seed & 0xfff));
    template = malloc((size_t)size + 512);
    int used = sprintf(template, "{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"%s\",\"type\":\"%s\",\"subject\":\"shop\",\"data\":{\"t\":\"%016d\",\"x\":\"", run_id,
        key_name, topic, 0);
    if (used + 3 > size) DIE("--size %ld: this event needs %d bytes", size, used + 3);
    memset(template + used, 'x', (size_t)size - (size_t)used - 3);
    memcpy(template + size - 3, "\"}}", 3);
    id_at = (size_t)(strstr(template, run_id) - template) + ID - 12;
    time_at = (size_t)(strstr(template, "\"t\":\"") - template) + 5;
}
static uint8_t *put_event(uint8_t *p, uint64_t serial, uint64_t time) {
    put16(p, (uint16_t)topic_size), put16(p + 2, ID), put32(p + 4, (uint32_t)size);
    p += ENTRY;
    memcpy(p, topic, topic_size);
    p += topic_size;
    memcpy(p, run_id, ID);
    put_hex((char *)p + ID - 12, serial, 12);
    p += ID;
    memcpy(p, template, (size_t)size);
    memcpy(p + id_at, p - 12, 12);
    put_hex((char *)p + time_at, time, 16);
    return p + size;
}
static size_t packed_size(long count) { return (size_t)count * (ENTRY + topic_size + ID + (size_t)size); }

/// Dies on exceptions in a PUBACK, of which 208 may be counted instead.
static void check_exceptions(zmq_msg_t *message, long *duplicates) {
    const uint8_t *p = (const uint8_t *)zmq_msg_data(message) + HEADER, *end = (const uint8_t *)zmq_msg_data(message) + zmq_msg_size(message);
    for (; p + 12 <= end; p += 12) {
        if (get16(p + 8) != 208 || !duplicates) DIE("event %lu was refused with %u", (unsigned long)get64(p), get16(p + 8));
        ++*duplicates;
    }
}

static pthread_barrier_t ready;
static uint64_t rate_ns;

struct publisher {
    pthread_t thread;
    long index, n;
    uint64_t began, ended, *times;
    uint32_t *latencies;
};
static void *publish(void *argument) {
    struct publisher *u = argument;
    struct connection c;
    join(&c, outbox);
    long window = win < c.window_msgs ? win : c.window_msgs, by_bytes = c.window_bytes / size;
    if (window > by_bytes) window = by_bytes;
    if (window < 1) window = 1;
    uint64_t first = outbox ? c.outbox_last : 0, serial = (uint64_t)u->index << 40;
    u->times = calloc((size_t)u->n + 1, 8);
    u->latencies = calloc((size_t)u->n + 1, 4);
    zmq_msg_t message;
    zmq_msg_init(&message);
    pthread_barrier_wait(&ready);
    usleep(50000);
    long sent = 0, acked = 0;
    u->began = now_ns();
    uint64_t due = u->began;
    while (acked < u->n) {
        while (sent < u->n && sent - acked < window) {
            if (rate_ns) { // an open loop would hide what waits: the next event is due a period after this one was
                uint64_t now = now_ns();
                if (now < due) usleep((unsigned)((due - now) / 1000));
                due += rate_ns;
                heartbeat(&c, now);
            }
            long count = u->n - sent, room = window - (sent - acked);
            if (count > room) count = room;
            if (count > pack) count = pack;
            if (rate_ns) count = 1;
            zmq_msg_t out;
            uint8_t *p = begin(&out, PUB, 0, 0, 0, first + (uint64_t)sent + 1, (uint64_t)count, packed_size(count));
            uint64_t now = 0;
            for (; count--; p = put_event(p, serial + (uint64_t)sent, now)) u->times[++sent] = now = now_ns();
            finish(&c, &out, now);
        }
        for (int flags = 0, command; (command = hear(&c, &message, flags, 0)) >= 0; flags = ZMQ_DONTWAIT) {
            if (command != PUBACK) {
                if (command || now_ns() - c.heard > 60 * SECOND) DIE("no PUBACK for event %ld", acked + 1);
                continue;
            }
            uint64_t upto = get64((const uint8_t *)zmq_msg_data(&message) + 12) - first, now = c.heard;
            check_exceptions(&message, NULL);
            for (; acked < (long)upto; acked++) u->latencies[acked] = since(u->times[acked + 1], now);
        }
    }
    u->ended = now_ns();
    zmq_msg_close(&message);
    hang_up(&c);
    return NULL;
}

struct subscriber {
    pthread_t thread;
    long index;
    uint64_t ended;
    uint32_t *latencies;
};
static long credit_msgs, credit_bytes;

/// SUB with a handle of 1; returns the number before the first that will come.
static uint64_t subscribe(struct connection *c, const char *consumer, const char *from, const char *filter, uint64_t *generation) {
    char body[512];
    int used = snprintf(body, sizeof body, "{\"filters\":[\"%s\"],\"consumer\":\"%s\",\"from\":%s,\"credit_msgs\":%ld,\"credit_bytes\":%ld}", filter,
        consumer, from, credit_msgs, credit_bytes);
    say(c, SUB, 0, 1, 0, 0, body, (size_t)used);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (int command; (command = hear(c, &message, 0, 0)) != SUBOK;)
        if (command || now_ns() - c->heard > 60 * SECOND) DIE("no SUBOK");
    const uint8_t *p = zmq_msg_data(&message);
    uint64_t cursor = get64(p + 12);
    *generation = get64(p + 20);
    zmq_msg_close(&message);
    return cursor;
}

struct reading {
    uint64_t cursor, generation;
    long used_msgs, used_bytes;
};
/// Takes in one EVENTS, checks its range and its records, tops credit up (and acknowledges) when half is used. Returns how many
/// events; puts their latencies into `latencies` when that is given.
static long take(struct connection *c, struct reading *r, zmq_msg_t *message, int durable, uint32_t *latencies, long most) {
    const uint8_t *p = zmq_msg_data(message), *end = p + zmq_msg_size(message);
    if (get64(p + 12) != r->cursor + 1) DIE("a gap: range %lu after %lu", (unsigned long)get64(p + 12), (unsigned long)r->cursor);
    r->cursor = get64(p + 20);
    if (get16(p + 4) & 1) DIE("a redelivery");
    p += HEADER;
    long count = 0;
    for (uint64_t now = c->heard; p < end; count++) {
        uint32_t length = get32(p);
        size_t whole = ((size_t)length + 8 + 7) & ~(size_t)7;
        if (length < RECORD - 8 || whole > (size_t)(end - p)) DIE("a record of %u bytes does not fit", length);
        if (check_crc && crc32c(p + 8, length) != get32(p + 4)) DIE("event %lu is damaged", (unsigned long)get64(p + 8));
        size_t fixed = RECORD + (size_t)get16(p + 26) + get16(p + 28) + get16(p + 30);
        if (latencies && count < most) latencies[count] = since(get_hex(p + fixed + time_at, 16), now);
        r->used_bytes += (long)whole;
        p += whole;
    }
    r->used_msgs += count;
    if (r->used_msgs * 2 >= credit_msgs || r->used_bytes * 2 >= credit_bytes) {
        if (durable) say(c, ACK, 0, 1, r->cursor, r->generation, NULL, 0);
        say(c, CREDIT, 0, 1, (uint64_t)r->used_msgs, (uint64_t)r->used_bytes, NULL, 0);
        r->used_msgs = r->used_bytes = 0;
    }
    heartbeat(c, c->heard);
    return count;
}
static int durable;
static void *receive(void *argument) {
    struct subscriber *u = argument;
    struct connection c;
    join(&c, NULL);
    struct reading r = {0};
    char consumer[64] = "";
    if (durable) snprintf(consumer, sizeof consumer, "load-%.8s-%ld", run_id, u->index);
    r.cursor = subscribe(&c, consumer, "\"new\"", topic, &r.generation);
    u->latencies = calloc((size_t)n + 4096, 4);
    zmq_msg_t message;
    zmq_msg_init(&message);
    pthread_barrier_wait(&ready);
    for (long i = 0; i < n;) {
        int command = hear(&c, &message, 0, 0);
        if (command == EVENTS) i += take(&c, &r, &message, durable, u->latencies + i, n - i);
        else if (command) DIE("command %02x to a subscriber", (unsigned)command);
    }
    u->ended = now_ns();
    if (durable) say(&c, ACK, 0, 1, r.cursor, r.generation, NULL, 0);
    zmq_msg_close(&message);
    hang_up(&c);
    return NULL;
}
static void load(void) {
    struct publisher *p = calloc((size_t)pubs, sizeof *p);
    struct subscriber s[MOST] = {0};
    pthread_barrier_init(&ready, NULL, (unsigned)(subs + pubs));
    for (long i = 0; i < subs; i++) s[i].index = i, pthread_create(&s[i].thread, NULL, receive, &s[i]);
    for (long i = 0; i < pubs; i++) p[i].index = i, p[i].n = n / pubs, pthread_create(&p[i].thread, NULL, publish, &p[i]);
    uint64_t began = UINT64_MAX, ended = 0, last = 0;
    uint32_t *latencies = malloc((size_t)n * 4);
    for (long i = 0; i < pubs; i++) {
        pthread_join(p[i].thread, NULL);
        if (p[i].began < began) began = p[i].began;
        if (p[i].ended > ended) ended = p[i].ended;
        memcpy(latencies + i * (n / pubs), p[i].latencies, (size_t)p[i].n * 4);
    }
    for (long i = 0; i < subs; i++) {
        pthread_join(s[i].thread, NULL);
        if (s[i].ended > last) last = s[i].ended;
    }
    qsort(latencies, (size_t)n, 4, by_value);
    printf("{\"thr\":%.0f,\"p50\":%.1f,\"p99\":%.1f", (double)n / ((double)(ended - began) / 1e9), microseconds(latencies, (size_t)n, .5),
        microseconds(latencies, (size_t)n, .99));
    if (subs) {
        qsort(s[0].latencies, (size_t)n, 4, by_value);
        printf(",\"deliv\":%.0f,\"e2e_p50\":%.1f,\"e2e_p99\":%.1f", (double)n * (double)subs / ((double)(last - began) / 1e9),
            microseconds(s[0].latencies, (size_t)n, .5), microseconds(s[0].latencies, (size_t)n, .99));
    }
    printf("}\n");
}

// MARK: Queries

static void *serve(void *argument) {
    struct connection *c = argument;
    zmq_msg_t message;
    zmq_msg_init(&message);
    pthread_barrier_wait(&ready);
    for (;;) {
        int command = hear(c, &message, 0, 0);
        if (command != CALL) continue;
        const uint8_t *p = zmq_msg_data(&message);
        size_t at = HEADER;
        at += 2u + get16(p + at);
        at += 2u + get16(p + at);
        if (at > zmq_msg_size(&message)) DIE("a CALL that does not parse");
        say(c, REP, 200, 0, get64(p + 12), 0, p + at, zmq_msg_size(&message) - at);
    }
    return NULL;
}
static void round_trips(void) {
    static const char method[] = "bench.echo";
    struct connection server, c;
    pthread_t thread;
    join(&server, NULL);
    join(&c, NULL);
    say(&server, SERVE, 0, 1, 1, 0, "{\"service\":\"bench\"}", 19);
    pthread_barrier_init(&ready, NULL, 2);
    pthread_create(&thread, NULL, serve, &server);
    pthread_barrier_wait(&ready);
    usleep(100000);
    size_t length = sizeof method - 1, body = 2 + length + 2 + (size_t)size;
    uint8_t *request = calloc(1, body);
    put16(request, (uint16_t)length);
    memcpy(request + 2, method, length);
    memcpy(request + 2 + length + 2, template, (size_t)size);
    uint32_t *latencies = calloc((size_t)n, 4);
    zmq_msg_t message;
    zmq_msg_init(&message);
    uint64_t number = 0, began = 0;
    for (long i = -500; i < n; i++) {
        uint64_t start = now_ns();
        if (!i) began = start;
        say(&c, REQ, 0, 0, ++number, 5000, request, body);
        for (int command; (command = hear(&c, &message, 0, 0)) != REP;)
            if (command || now_ns() - start > 6 * SECOND) DIE("no REP for query %ld", i);
        const uint8_t *p = zmq_msg_data(&message);
        if (get16(p + 6) != 200 || get64(p + 12) != number || zmq_msg_size(&message) != HEADER + (size_t)size)
            DIE("query %ld: status %u, %zu bytes", i, get16(p + 6), zmq_msg_size(&message));
        if (i >= 0) latencies[i] = since(start, c.heard);
    }
    double elapsed = (double)(now_ns() - began) / 1e9;
    qsort(latencies, (size_t)n, 4, by_value);
    printf("{\"thr\":%.0f,\"p50\":%.1f,\"p99\":%.1f}\n", (double)n / elapsed, microseconds(latencies, (size_t)n, .5), microseconds(latencies, (size_t)n, .99));
    fflush(stdout);
    _exit(0);
}

// MARK: Replay, waiting, restarts

/// `--from` as SUB wants it.
static const char *position(const struct connection *c) {
    static char json[64];
    long from = number("--from", 1);
    if (from < 0) from = (long)c->last + from + 1;
    if (from < 0) DIE("--from %ld: the log ends with number %lu", number("--from", 1), (unsigned long)c->last);
    snprintf(json, sizeof json, "{\"seq\":%ld}", from);
    return json;
}
static void replay(void) {
    struct connection c;
    uint64_t total = 0, until = seconds ? now_ns() + (uint64_t)seconds * SECOND : 0, began = now_ns(), ended;
    do {
        struct reading r = {0};
        zmq_msg_t message;
        zmq_msg_init(&message);
        join(&c, NULL);
        if (!total) began = now_ns();
        r.cursor = subscribe(&c, "", position(&c), arg("--filter", topic), &r.generation);
        for (long i = 0; i < n && (!until || now_ns() < until);) {
            int command = hear(&c, &message, 0, 0);
            if (command == EVENTS) {
                long got = take(&c, &r, &message, 0, NULL, 0);
                i += got, total += (uint64_t)got;
            } else if (command) DIE("command %02x to a subscriber", (unsigned)command);
        }
        ended = now_ns();
        zmq_msg_close(&message);
        hang_up(&c);
    } while (until && now_ns() < until);
    printf("{\"n\":%lu,\"deliv\":%.0f}\n", (unsigned long)total, (double)total / ((double)(ended - began) / 1e9));
}
static void hold(void) {
    struct connection *c = calloc((size_t)subs, sizeof *c);
    for (long i = 0; i < subs; i++) {
        uint64_t generation;
        char consumer[64];
        join(&c[i], NULL);
        snprintf(consumer, sizeof consumer, "hold-%.8s-%ld", run_id, i);
        subscribe(&c[i], consumer, position(&c[i]), arg("--filter", topic), &generation);
        if (number("--serve", 0)) say(&c[i], SERVE, 0, 2, 1, 0, "{\"service\":\"bench\"}", 19);
        option(c[i].socket, ZMQ_RCVTIMEO, (int)(200 / subs) + 1);
    }
    printf("{\"held\":%ld}\n", subs);
    fflush(stdout);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (uint64_t until = now_ns() + (uint64_t)seconds * SECOND; now_ns() < until;)
        for (long i = 0; i < subs; i++) {
            hear(&c[i], &message, 0, 0);
            heartbeat(&c[i], now_ns());
        }
    for (long i = 0; i < subs; i++) hang_up(&c[i]);
}
/// Sends in a window, and carries on through restarts of the bus as section 5.3 of wire.md says, woken by the socket's monitor.
static void pauses(void) {
    struct connection c;
    join(&c, NULL);
    if (zmq_socket_monitor(c.socket, "inproc://monitor", ZMQ_EVENT_HANDSHAKE_SUCCEEDED)) DIE("no monitor: %s", zmq_strerror(errno));
    void *monitor = zmq_socket(c.context, ZMQ_PAIR);
    zmq_connect(monitor, "inproc://monitor");
    zmq_msg_t message;
    zmq_msg_init(&message);
    long sessions = 1, duplicates = 0;
    // Of events: decided, sent in this session, decided when the session began.
    uint64_t acked = 0, sent = 0, base = 0, began = now_ns(), until = began + (uint64_t)seconds * SECOND, last_ack = began, longest = 0, asked = 0;
    int open = 1;
    // Who is still away at the end is waited for, half a minute.
    for (uint64_t t; (t = now_ns()) < until || (t - last_ack > SECOND / 2 && t < until + 30 * SECOND);) {
        for (; open && sent - acked < (uint64_t)win; sent++) {
            zmq_msg_t out;
            put_event(begin(&out, PUB, 0, 0, 0, sent - base + 1, 1, packed_size(1)), sent, now_ns());
            if (zmq_msg_send(&out, c.socket, ZMQ_DONTWAIT) < 0) { // no connection just now
                zmq_msg_close(&out);
                open = 0;
            } else c.said = now_ns();
            if (!open) break;
        }
        zmq_pollitem_t items[] = {{c.socket, 0, ZMQ_POLLIN, 0}, {monitor, 0, ZMQ_POLLIN, 0}};
        zmq_poll(items, 2, 100);
        if (items[1].revents) {
            while (zmq_msg_recv(&message, monitor, ZMQ_DONTWAIT) >= 0) {}
            open = 0, asked = 0;
        }
        uint64_t now = now_ns();
        if (!open && now - asked > SECOND) {
            zmq_pollitem_t out = {c.socket, 0, ZMQ_POLLOUT, 0};
            if (zmq_poll(&out, 1, 0) > 0) hello(&c, NULL), asked = now;
        }
        if (!items[0].revents) continue;
        for (int command; (command = hear(&c, &message, ZMQ_DONTWAIT, 1)) > 0;) {
            const uint8_t *p = zmq_msg_data(&message);
            if (command == WELCOME) {
                welcome(&c, &message);
                base = sent = acked;
                open = 1, sessions++;
            } else if (command == PUBACK && open) {
                check_exceptions(&message, &duplicates);
                uint64_t upto = base + get64(p + 12);
                if (upto <= acked) continue;
                acked = upto;
                if (c.heard - last_ack > longest) longest = c.heard - last_ack;
                last_ack = c.heard;
            } else if (command == ERR && get16(p + 6) == 401) {
                if (open) open = 0, asked = 0;
            } else if (command == BYE) {
                open = 0, asked = now; // wait until it is back: the monitor tells
            } else if (command == ERR) DIE("ERR %u: %.*s", get16(p + 6), (int)(zmq_msg_size(&message) - HEADER), (const char *)p + HEADER);
        }
    }
    printf("{\"acked\":%lu,\"sessions\":%ld,\"duplicates\":%ld,\"pause_ms\":%.1f,\"silent_ms\":%.1f}\n", (unsigned long)acked, sessions, duplicates,
        (double)longest / 1e6, (double)(now_ns() - last_ack) / 1e6);
    fflush(stdout);
    _exit(0);
}

static void wait_for_session(void) {
    struct connection c;
    impatient = 1;
    join(&c, NULL);
    printf("{\"at\":%lu,\"last\":%lu}\n", (unsigned long)c.heard, (unsigned long)c.last);
    hang_up(&c);
}

int main(int argc, char **argv) {
    argc_ = argc, argv_ = argv;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    read_key(arg("--key", NULL));
    if (arg("--endpoint", NULL)) snprintf(endpoint, sizeof endpoint, "%s", arg("--endpoint", ""));
    const char *mode = arg("--mode", "load");
    seconds = number("--seconds", !strcmp(mode, "replay") ? 0 : 10);
    alarm((unsigned)number("--limit", seconds + 120));
    crc_prepare();
    plain = (int)number("--plain", 0), check_crc = (int)number("--crc", 1), durable = (int)number("--durable", 0);
    n = number("--n", 100000), size = number("--size", 256), win = number("--win", !strcmp(mode, "pause") ? 1 : 1024), pack = number("--pack", 16);
    pubs = number("--pubs", 1), subs = number("--subs", 1);
    credit_msgs = number("--credit-msgs", 4096), credit_bytes = number("--credit-bytes", 16 << 20);
    topic = arg("--topic", "build.finished"), topic_size = strlen(topic), outbox = arg("--outbox", NULL);
    rate_ns = number("--rate", 0) ? SECOND / (uint64_t)number("--rate", 0) : 0;
    if (n < pubs || pubs < 1 || pubs > 1024 || subs < 0 || subs > MOST || pack < 1 || win < 1 || (outbox && pubs > 1)) DIE("numbers that make no sense");
    n -= n % pubs;
    if ((size_t)pack * (size_t)size > 1 << 20) pack = (1 << 20) / size ? (1 << 20) / size : 1;
    prepare_payload();
    if (!strcmp(mode, "load")) load();
    else if (!strcmp(mode, "rtt")) round_trips();
    else if (!strcmp(mode, "replay")) replay();
    else if (!strcmp(mode, "hold")) hold();
    else if (!strcmp(mode, "pause")) pauses();
    else if (!strcmp(mode, "join")) wait_for_session();
    else DIE("--mode %s?", mode);
    return 0;
}
