/* A load generator for WebSocket servers: one thread, epoll, nothing but libc. For Linux.
 *
 *   cc -O2 -o load load.c
 *   load MODE PORT [--option value ...]
 *
 * Modes
 *   echo    every connection keeps --window messages in flight, for --seconds
 *   paced   --rate messages a second in all, whatever comes back; latency counts from when a message was due
 *   open    connect, opening handshake, closing handshake, end of TCP; --connections at a time, for --seconds
 *   hold    opens all, echoes --touch messages on each, prints {"alive": N}, holds them until stdin ends
 *   fanout  the first connection publishes, --window messages in flight; the server sends them to all
 *
 * Options: --connections, --size (bytes), --window, --rate, --touch, --seconds, --warmup (seconds),
 * --pid (of the server, for its CPU time), --deflate FILE (the payload of all messages, compressed).
 *
 * Every reply is compared with what was sent: opcode, length, content. Compressed ones are only counted.
 * The last line on stdout is one JSON object. Exit status: 0, or 1 if no connection could be opened, or 2
 * for wrong arguments.
 *
 * All frames of a run carry the same masking key, so that masking costs nothing here. RFC 6455 §5.3
 * forbids that to real clients; to a server it makes no difference.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull /* times are nanoseconds of CLOCK_MONOTONIC */
#define READ_SIZE (256 * 1024)
#define OPENING_AT_A_TIME 4 /* fits the smallest backlog among the servers, 5 */
#define OPEN_TIMEOUT (120 * SECOND)
#define STUCK (10 * SECOND)
#define FANOUT_RING 1024

/* The sample of RFC 6455 §1.3: with one key for all, the answer needs no SHA-1. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum state { FREE, CONNECTING, SHAKING, OPEN, CLOSING, ENDING };

struct connection {
    int fd;
    enum state state;
    bool wants_write;
    uint64_t began;                              /* connect(), or the close frame that was sent */
    /* receiving */
    char head[2048];                             /* answer to the opening handshake */
    size_t head_size;
    uint8_t header[10], control[125];
    unsigned header_size, control_size;
    uint64_t frame_left, position;               /* bytes left of the frame; position in the message */
    bool in_frame, compressed;
    uint8_t first, opcode;                       /* first byte of the frame; opcode of the message */
    uint64_t received;                           /* messages */
    /* sending */
    uint64_t owed;                               /* bytes of messages */
    size_t at;                                   /* where in the train they go on */
    uint8_t out[512];                            /* request or control frames; before messages */
    size_t out_size;
    unsigned ready;                              /* replies that no further message was sent for */
    /* when the messages in flight were sent, or were due */
    uint64_t *times;
    unsigned oldest, newest;
};

static struct {
    const char *mode, *deflate;
    int port, connections, window, rate, touch, pid;
    size_t size;
    double seconds, warmup;
} option = {.connections = 1, .window = 1, .rate = 1000, .size = 32, .seconds = 2, .warmup = 0.3};

static struct {
    uint64_t opened, failed, lost, messages, cycles, wrong, uncompressed, unsent, no_end, pings;
    char error[120]; /* the first one */
} count;

static struct connection *connections;
static int epoll_fd;
static uint8_t *payload, *train; /* the train: whole masked frames, one after the other */
static size_t payload_size, frame_size, train_size;
static uint8_t buffer[READ_SIZE];
static unsigned ring = 1; /* size of times */
static int opening, open_now;
static bool measuring, running = true;
static volatile sig_atomic_t interrupted;
static uint64_t event_time; /* when the event being handled was noticed */
static unsigned replies;    /* that it brought */
static uint64_t published;  /* messages, in mode fanout */

/* ---- Small things ---------------------------------------------------------------------------------- */

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        die("no memory");
    return memory;
}

static uint64_t clock_time(clockid_t clock)
{
    struct timespec time;
    return clock_gettime(clock, &time) ? 0 : (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t now(void) { return clock_time(CLOCK_MONOTONIC); }

static uint64_t server_cpu(void)
{
    clockid_t clock;
    return option.pid && !clock_getcpuclockid(option.pid, &clock) ? clock_time(clock) : 0;
}

static void note_error(const char *text)
{
    if (count.error[0])
        return;
    size_t size = 0;
    for (; *text && *text != '\r' && size < sizeof count.error - 1; text++)
        count.error[size++] = *text < ' ' || *text > '~' || *text == '"' || *text == '\\' ? '?' : *text;
}

/* ---- Latencies: all of them are kept, so that percentiles are exact ---------------------------------- */

static uint32_t *latencies; /* ns; the longest that fits is 4.2 s */
static size_t latency_count, latency_room;

static void add_latency(uint64_t latency)
{
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies)
            die("no memory");
    }
    latencies[latency_count++] = latency > UINT32_MAX ? UINT32_MAX : (uint32_t)latency;
}

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static double percentile(double part) /* µs; nearest rank */
{
    size_t rank = (size_t)(part * (double)latency_count + 0.999999);
    return latencies[rank ? rank - 1 : 0] / 1e3;
}

static void print_latencies(void)
{
    if (!latency_count)
        return;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    printf(", \"latency_us\": {\"count\": %zu, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, "
           "\"max\": %.1f}",
           latency_count, percentile(0.5), percentile(0.9), percentile(0.99), percentile(0.999), percentile(1));
}

/* ---- Frames ------------------------------------------------------------------------------------------ */

static size_t write_frame(uint8_t *to, uint8_t first, const uint8_t *data, size_t size)
{
    static const uint8_t key[4] = {0x5a, 0xc3, 0x1e, 0x97};
    size_t at = 0;
    to[at++] = first;
    if (size < 126)
        to[at++] = (uint8_t)(0x80 | size);
    else {
        int bytes = size < 65536 ? 2 : 8;
        to[at++] = bytes == 2 ? 0x80 | 126 : 0x80 | 127;
        while (bytes--)
            to[at++] = (uint8_t)((uint64_t)size >> (8 * bytes));
    }
    memcpy(to + at, key, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        to[at + i] = data[i] ^ key[i & 3];
    return at + size;
}

static void read_payload(void)
{
    FILE *file = fopen(option.deflate, "rb");
    if (!file)
        die("%s: %s", option.deflate, strerror(errno));
    payload = allocate(1 << 20);
    payload_size = fread(payload, 1, 1 << 20, file);
    fclose(file);
}

static void make_payload(void)
{
    static const char words[] = "The five boxing wizards jump quickly. ";
    payload_size = option.size;
    payload = allocate(payload_size);
    for (size_t i = 0; i < payload_size; i++)
        payload[i] = (uint8_t)words[i % (sizeof words - 1)];
}

static void make_train(void)
{
    size_t frames = 65536 / (payload_size + 14) + 1;
    train = allocate(frames * (payload_size + 14));
    for (size_t i = 0; i < frames; i++) {
        frame_size = write_frame(train + train_size, option.deflate ? 0xc0 | TEXT : 0x80 | TEXT, payload, payload_size);
        train_size += frame_size;
    }
}

/* ---- Sending ----------------------------------------------------------------------------------------- */

static void gone(struct connection *c, const char *why)
{
    if (c->state == FREE)
        return;
    close(c->fd);
    if (c->state == CONNECTING || c->state == SHAKING) {
        opening--;
        count.failed++;
        note_error(why);
    } else {
        open_now--;
        if (c->state == OPEN) {
            count.lost++;
            note_error(why);
        }
    }
    c->state = FREE;
}

static void watch(struct connection *c, bool write)
{
    if (c->wants_write == write)
        return;
    c->wants_write = write;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* What to send next; a control frame may not go into the middle of a message's frame. */
static size_t next_bytes(struct connection *c, const uint8_t **from)
{
    size_t into = c->at % frame_size, size = train_size - c->at;
    if (c->out_size && !into) {
        *from = c->out;
        return c->out_size;
    }
    *from = train + c->at;
    if (c->out_size)
        size = frame_size - into;
    return size < c->owed ? size : (size_t)c->owed;
}

static void flush(struct connection *c)
{
    while (c->out_size || c->owed) {
        const uint8_t *from;
        size_t size = next_bytes(c, &from);
        ssize_t sent = send(c->fd, from, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            gone(c, strerror(errno));
            return;
        }
        if (sent > 0 && from == c->out) {
            c->out_size -= (size_t)sent;
            memmove(c->out, c->out + sent, c->out_size);
        } else if (sent > 0) {
            c->owed -= (uint64_t)sent;
            c->at = (c->at + (size_t)sent) % train_size;
        }
        if (sent < (ssize_t)size) {
            watch(c, true);
            return;
        }
    }
    watch(c, false);
}

static void put_out(struct connection *c, const void *data, size_t size)
{
    if (c->out_size + size > sizeof c->out)
        return; /* only pongs come so many, and the last one stands for all: RFC 6455 §5.5.3 */
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void send_control(struct connection *c, uint8_t opcode, const uint8_t *data, size_t size)
{
    uint8_t frame[140];
    put_out(c, frame, write_frame(frame, 0x80 | opcode, data, size));
    flush(c);
}

static void send_messages(struct connection *c, unsigned number, uint64_t time)
{
    c->owed += (uint64_t)number * frame_size;
    while (number--)
        c->times[c->newest++ % ring] = time;
    flush(c);
}

static void start_closing(struct connection *c)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 255};
    size_t into = c->at % frame_size;
    c->owed = into ? frame_size - into : 0;
    c->state = CLOSING;
    c->began = now();
    send_control(c, CLOSE, normal, 2);
}

/* ---- Opening ----------------------------------------------------------------------------------------- */

static bool start_opening(struct connection *c)
{
    static unsigned source;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note_error(strerror(errno));
        count.failed++;
        return false;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Several source addresses, or thousands of handshakes would run out of ports. */
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + source++ % 16)};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    bind(fd, (struct sockaddr *)&from, sizeof from);

    uint64_t *times = c->times;
    memset(c, 0, sizeof *c);
    c->times = times;
    c->fd = fd;
    c->state = CONNECTING;
    c->wants_write = true;
    c->began = now();
    opening++;
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)option.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        gone(c, strerror(errno));
        return false;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl: %s", strerror(errno));
    return true;
}

static void send_request(struct connection *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        gone(c, strerror(error));
        return;
    }
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          option.port,
                          option.deflate
                              ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
                              : "");
    c->state = SHAKING;
    put_out(c, request, (size_t)length);
    flush(c);
}

/* The size of what followed the answer, at the end of head; -1 while there is no whole answer, or a wrong one. */
static ssize_t take_answer(struct connection *c, const uint8_t *data, size_t size)
{
    if (c->head_size + size >= sizeof c->head)
        size = sizeof c->head - 1 - c->head_size;
    memcpy(c->head + c->head_size, data, size);
    c->head_size += size;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->head_size == sizeof c->head - 1)
            gone(c, "long answer to the opening handshake");
        return -1;
    }
    char after = end[2];
    end[2] = 0;
    bool good = !strncmp(c->head, "HTTP/1.1 101", 12) && strstr(c->head, ACCEPT);
    bool deflate = strcasestr(c->head, "permessage-deflate");
    end[2] = after;
    if (!good || deflate != !!option.deflate) {
        gone(c, good ? "compression was not agreed on as asked" : c->head);
        return -1;
    }
    opening--;
    open_now++;
    count.opened++;
    c->state = OPEN;
    return (ssize_t)(c->head_size - (size_t)(end + 4 - c->head));
}

/* ---- Receiving --------------------------------------------------------------------------------------- */

static void fanout_message(struct connection *c);

static void got_message(struct connection *c)
{
    if (c->opcode != TEXT || (!option.deflate && c->position != payload_size))
        count.wrong++;
    if (option.deflate && !c->compressed)
        count.uncompressed++;
    if (measuring)
        count.messages++;
    if (!strcmp(option.mode, "fanout"))
        fanout_message(c);
    else if (c->oldest == c->newest)
        count.wrong++; /* more replies than messages */
    else {
        uint64_t time = c->times[c->oldest++ % ring];
        if (measuring)
            add_latency(event_time - time);
    }
    c->received++;
    replies++;
}

static void got_data(struct connection *c, const uint8_t *data, size_t size)
{
    if (!option.deflate && (c->position + size > payload_size || memcmp(payload + c->position, data, size)))
        count.wrong++;
    c->position += size;
}

static void got_control(struct connection *c, size_t size)
{
    if ((c->first & 15) == PING) {
        count.pings++;
        send_control(c, PONG, c->control, size);
    } else if ((c->first & 15) == CLOSE && c->state == CLOSING)
        c->state = ENDING;
    else if ((c->first & 15) == CLOSE) {
        char text[sizeof c->control + 40];
        snprintf(text, sizeof text, "closed by the server: %d %.*s", size > 1 ? c->control[0] << 8 | c->control[1] : 1005,
                 size > 2 ? (int)size - 2 : 0, (char *)c->control + 2);
        gone(c, text);
    }
}

/* Takes bytes of a header; true when it is whole. */
static bool take_header(struct connection *c, const uint8_t **data, size_t *size)
{
    while (*size) {
        c->header[c->header_size++] = *(*data)++;
        --*size;
        if (c->header_size < 2)
            continue;
        unsigned length = c->header[1] & 127, whole = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (c->header_size < whole)
            continue;
        c->frame_left = whole == 2 ? length : 0;
        for (unsigned i = 2; i < whole; i++)
            c->frame_left = c->frame_left << 8 | c->header[i];
        c->first = c->header[0];
        c->header_size = 0;
        return true;
    }
    return false;
}

static void start_frame(struct connection *c)
{
    unsigned opcode = c->first & 15;
    c->in_frame = true;
    if (c->header[1] & 0x80 || (opcode >= CLOSE && c->frame_left > 125)) {
        count.wrong++;
        gone(c, "wrong frame");
    } else if (opcode && opcode < CLOSE) {
        c->opcode = (uint8_t)opcode;
        c->compressed = c->first & 0x40;
        c->position = 0;
    } else if (opcode >= CLOSE)
        c->control_size = (unsigned)c->frame_left;
}

static void take_frames(struct connection *c, const uint8_t *data, size_t size)
{
    while (c->state == OPEN || c->state == CLOSING) {
        if (!c->in_frame) {
            if (!take_header(c, &data, &size))
                return;
            start_frame(c);
            continue;
        }
        size_t part = size < c->frame_left ? size : (size_t)c->frame_left;
        bool is_control = (c->first & 15) >= CLOSE;
        if (is_control)
            memcpy(c->control + (c->control_size - c->frame_left), data, part);
        else
            got_data(c, data, part);
        c->frame_left -= part;
        data += part;
        size -= part;
        if (c->frame_left)
            return;
        c->in_frame = false;
        if (is_control)
            got_control(c, c->control_size);
        else if (c->first & 0x80)
            got_message(c);
    }
}

static void ended(struct connection *c)
{
    if (c->state == CLOSING) {
        count.no_end++; /* TCP ended without a close frame */
        note_error("closed without a close frame");
    }
    if ((c->state == CLOSING || c->state == ENDING) && measuring)
        count.cycles++;
    gone(c, "the server ended the connection");
}

static void refill(struct connection *c)
{
    unsigned batch = option.window >= 8 ? (unsigned)option.window / 4 : 1;
    c->ready += replies;
    if (c->ready >= batch) {
        send_messages(c, c->ready, now());
        c->ready = 0;
    }
}

static void opened(struct connection *c)
{
    if (strcmp(option.mode, "open"))
        return;
    if (measuring)
        add_latency(now() - c->began);
    start_closing(c);
}

static void readable(struct connection *c)
{
    ssize_t size;
    replies = 0;
    do {
        size = recv(c->fd, buffer, sizeof buffer, 0);
        if (size < 0 && errno == EAGAIN)
            break;
        if (size <= 0) {
            if (size < 0)
                gone(c, strerror(errno));
            else
                ended(c);
            return;
        }
        if (c->state == SHAKING) {
            ssize_t left = take_answer(c, buffer, (size_t)size);
            if (left < 0)
                return;
            opened(c);
            take_frames(c, (uint8_t *)c->head + c->head_size - left, (size_t)left);
        } else
            take_frames(c, buffer, (size_t)size);
    } while (size == sizeof buffer && c->state != FREE);
    if (replies && running && c->state == OPEN && !strcmp(option.mode, "echo"))
        refill(c);
}

/* ---- The event loop ---------------------------------------------------------------------------------- */

static bool timer_fired, input_ended;

static void poll_events(int milliseconds)
{
    static struct epoll_event events[512];
    int number = epoll_wait(epoll_fd, events, 512, milliseconds);
    for (int i = 0; i < number; i++) {
        struct connection *c = events[i].data.ptr;
        if (c == (void *)&timer_fired || c == (void *)&input_ended) {
            *(bool *)c = true;
            continue;
        }
        if (c->state == FREE)
            continue;
        if (c->state == CONNECTING) {
            send_request(c);
            continue;
        }
        if (events[i].events & EPOLLOUT)
            flush(c);
        if (c->state != FREE && events[i].events & ~(uint32_t)EPOLLOUT) {
            event_time = now();
            readable(c);
        }
    }
}

static void open_all(void)
{
    uint64_t end = now() + OPEN_TIMEOUT;
    int next = 0;
    while ((next < option.connections || opening) && now() < end && !interrupted) {
        /* One that does not open ends it: none of the following would. */
        if (count.failed)
            next = option.connections;
        while (next < option.connections && opening < OPENING_AT_A_TIME)
            start_opening(&connections[next++]);
        poll_events(50);
    }
    for (int i = 0; i < option.connections; i++)
        if (connections[i].state == CONNECTING || connections[i].state == SHAKING)
            gone(&connections[i], "no answer to the opening handshake");
}

static void close_all(void)
{
    running = false;
    for (int i = 0; i < option.connections; i++)
        if (connections[i].state == OPEN)
            start_closing(&connections[i]);
    uint64_t end = now() + STUCK;
    while (open_now && now() < end)
        poll_events(20);
}

/* Replies, or copies of published messages, that are still to come. */
static uint64_t in_flight(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < option.connections; i++) {
        struct connection *c = &connections[i];
        if (c->state == OPEN)
            sum += published ? published - c->received : c->newest - c->oldest;
    }
    return sum;
}

static void drain(void) /* so that a lost message is noticed */
{
    running = false;
    uint64_t last = now(), left = in_flight();
    while (left && now() < last + STUCK && !interrupted) {
        poll_events(20);
        uint64_t still = in_flight();
        if (still != left)
            last = now();
        left = still;
    }
}

/* ---- What is measured -------------------------------------------------------------------------------- */

static struct { uint64_t time, client, server; } began, finished;

static void start_measuring(void)
{
    latency_count = 0;
    began.time = now();
    began.client = clock_time(CLOCK_PROCESS_CPUTIME_ID);
    began.server = server_cpu();
    measuring = true;
}

static void stop_measuring(void)
{
    if (!measuring)
        return;
    measuring = false;
    finished.time = now();
    finished.client = clock_time(CLOCK_PROCESS_CPUTIME_ID);
    finished.server = server_cpu();
}

/* True until warm-up and measurement are over. */
static bool keep_going(uint64_t start)
{
    if (!measuring && now() >= start + (uint64_t)(option.warmup * 1e9))
        start_measuring();
    return !(measuring && now() >= began.time + (uint64_t)(option.seconds * 1e9)) && !interrupted;
}

static void run_echo(void)
{
    uint64_t start = now();
    for (int i = 0; i < option.connections; i++)
        if (connections[i].state == OPEN)
            send_messages(&connections[i], (unsigned)option.window, start);
    while (keep_going(start) && open_now)
        poll_events(5);
    stop_measuring();
    drain();
}

static void send_due(uint64_t start, uint64_t *sent)
{
    uint64_t due;
    while ((due = start + *sent * SECOND / (uint64_t)option.rate) <= now()) {
        struct connection *c = &connections[(*sent)++ % (uint64_t)option.connections];
        if (c->state != OPEN || c->newest - c->oldest >= ring)
            count.unsent++;
        else
            send_messages(c, 1, due);
    }
}

static void run_paced(void)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &timer_fired};
    uint64_t start = now(), sent = 0, ticks;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event);
    while (keep_going(start) && open_now) {
        send_due(start, &sent);
        uint64_t next = start + sent * SECOND / (uint64_t)option.rate;
        struct itimerspec when = {.it_value = {(time_t)(next / SECOND), (long)(next % SECOND)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        poll_events(5);
        if (timer_fired && read(timer, &ticks, sizeof ticks) > 0)
            timer_fired = false;
    }
    stop_measuring();
    close(timer);
    drain();
}

/* One that the server does not end in time is given up. */
static void give_up_stuck(struct connection *c)
{
    if (c->state == FREE || now() - c->began < STUCK)
        return;
    if (c->state == CLOSING || c->state == ENDING) {
        count.no_end++;
        note_error("the server did not end the connection");
    }
    gone(c, "no answer to the opening handshake");
}

static void run_open(void)
{
    uint64_t start = now();
    while (keep_going(start)) {
        for (int i = 0; i < option.connections; i++) {
            give_up_stuck(&connections[i]);
            if (connections[i].state == FREE)
                start_opening(&connections[i]);
        }
        poll_events(5);
    }
    stop_measuring();
}

static void run_hold(void)
{
    for (int i = 0; i < option.connections && option.touch; i++)
        if (connections[i].state == OPEN) {
            send_messages(&connections[i], (unsigned)option.touch, now());
            poll_events(0);
        }
    drain();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &input_ended};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event))
        die("standard input: %s", strerror(errno));
    printf("{\"alive\": %d}\n", open_now);
    fflush(stdout);
    start_measuring();
    while (!input_ended && !interrupted)
        poll_events(100);
    stop_measuring();
}

/* Messages come in order, so the n-th that a connection gets is the n-th that was published. */
static struct { uint64_t time, arrived; } fanout[FANOUT_RING];

static void publish(void)
{
    fanout[published % FANOUT_RING].time = now();
    fanout[published % FANOUT_RING].arrived = 0;
    published++;
    connections[0].owed += frame_size;
    flush(&connections[0]);
}

static void fanout_message(struct connection *c)
{
    if (c->received >= published) {
        count.wrong++;
        return;
    }
    uint64_t place = c->received % FANOUT_RING;
    if (++fanout[place].arrived < (uint64_t)option.connections)
        return;
    if (measuring)
        add_latency(event_time - fanout[place].time);
    if (running)
        publish();
}

/* A copy costs about as much to receive as to send. Where this falls behind, several copies wait in a
 * socket, and one read takes them all: so the window must be large enough for that. SO_RCVLOWAT would save
 * more, but delays the acknowledgements that servers without TCP_NODELAY wait for. */
static void run_fanout(void)
{
    uint64_t settled = now() + SECOND / 5; /* a server may register a client after its handshake */
    while (now() < settled)
        poll_events(20);
    uint64_t start = now();
    for (int i = 0; i < option.window; i++)
        publish();
    while (keep_going(start) && open_now)
        poll_events(5);
    stop_measuring();
    drain();
}

/* ---- The command line -------------------------------------------------------------------------------- */

static void print_result(uint64_t unanswered)
{
    double elapsed = (double)(finished.time - began.time) / 1e9;
    if (elapsed <= 0)
        elapsed = 1e-9;
    printf("{\"opened\": %llu, \"failed\": %llu, \"lost\": %llu, \"alive\": %d", (unsigned long long)count.opened,
           (unsigned long long)count.failed, (unsigned long long)count.lost, open_now);
    printf(", \"elapsed\": %.4f, \"messages\": %llu, \"bytes\": %llu, \"cycles\": %llu", elapsed,
           (unsigned long long)count.messages, (unsigned long long)(count.messages * payload_size),
           (unsigned long long)count.cycles);
    print_latencies();
    printf(", \"client_cpu\": %.3f", (double)(finished.client - began.client) / 1e9 / elapsed);
    if (option.pid)
        printf(", \"server_cpu\": %.3f", (double)(finished.server - began.server) / 1e9 / elapsed);
    printf(", \"wrong\": %llu, \"unanswered\": %llu, \"unsent\": %llu, \"uncompressed\": %llu, \"no_end\": %llu",
           (unsigned long long)count.wrong, (unsigned long long)unanswered, (unsigned long long)count.unsent,
           (unsigned long long)count.uncompressed, (unsigned long long)count.no_end);
    printf(", \"error\": \"%s\"}\n", count.error);
}

static void set_option(const char *name, const char *value)
{
    if (!value)
        die("%s needs a value", name);
    else if (!strcmp(name, "--connections"))
        option.connections = atoi(value);
    else if (!strcmp(name, "--size"))
        option.size = (size_t)atoll(value);
    else if (!strcmp(name, "--window"))
        option.window = atoi(value);
    else if (!strcmp(name, "--rate"))
        option.rate = atoi(value);
    else if (!strcmp(name, "--touch"))
        option.touch = atoi(value);
    else if (!strcmp(name, "--seconds"))
        option.seconds = atof(value);
    else if (!strcmp(name, "--warmup"))
        option.warmup = atof(value);
    else if (!strcmp(name, "--pid"))
        option.pid = atoi(value);
    else if (!strcmp(name, "--deflate"))
        option.deflate = value;
    else
        die("no such option: %s", name);
}

static void interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void set_up(void)
{
    signal(SIGTERM, interrupt);
    signal(SIGINT, interrupt);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (option.deflate)
        read_payload();
    else
        make_payload();
    make_train();
    if (!strcmp(option.mode, "paced"))
        ring = 4096;
    else if (option.window > option.touch)
        ring = (unsigned)option.window;
    else
        ring = (unsigned)option.touch;
    connections = allocate((size_t)option.connections * sizeof *connections);
    for (int i = 0; i < option.connections; i++)
        connections[i].times = allocate(ring * sizeof(uint64_t));
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } modes[] = {
        {"echo", run_echo}, {"paced", run_paced}, {"open", run_open}, {"hold", run_hold}, {"fanout", run_fanout}};
    void (*run)(void) = NULL;
    if (argc < 3)
        die("usage: load MODE PORT [--option value ...]; see the head of load.c");
    option.mode = argv[1];
    option.port = atoi(argv[2]);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i].name, option.mode))
            run = modes[i].run;
    if (!run || option.port < 1)
        die("no such mode, or no port: %s %s", argv[1], argv[2]);
    for (int i = 3; i < argc; i += 2)
        set_option(argv[i], argv[i + 1]);
    if (option.connections < 1 || option.window < 1 || option.window > FANOUT_RING || option.rate < 1 || !option.size)
        die("an option is out of its range");
    set_up();
    if (strcmp(option.mode, "open"))
        open_all();
    if (count.opened || !strcmp(option.mode, "open"))
        run();
    uint64_t unanswered = in_flight();
    close_all();
    print_result(unanswered);
    return count.opened ? 0 : 1;
}
