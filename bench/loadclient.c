/* loadclient.c - keep a number of connections busy with prepared messages, at as little cost as possible.

   loadclient milter|smtp SECONDS MESSAGES FIRST FD...   < script   > result

   The connections are open and past their greeting (loadclient.py does that).  A script is a list of pieces, each sent as a
   whole and then answered.  It has, as 32-bit numbers of this machine, the count of pieces, and for each piece its length,
   the count of places where the number of the message stands (8 hexadecimal digits, counted from FIRST), those places, and
   the octets.  No message begins after SECONDS, or after MESSAGES messages (0: without end); those under way then
   are waited for.  They do not count for the rate, but their latencies do: a session that was hardly served must show.

   The result, in doubles: seconds, CPU seconds of this program, messages finished in that time; for each session its share of
   those; and the seconds of each message.
   An answer that is not `continue` or `accept` (milter), 2xx or 3xx (smtp), silence for 30 s and a closed connection end the
   program with a message and status 1. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, SILENCE_MS = 30000, DIGITS = 8 };

struct piece { uint32_t length, places, *place; char *data; };
struct session { int fd, filled; uint32_t at; unsigned number, done; double began; char buffer[BUFFER]; };

static struct piece *pieces;
static uint32_t count;
static unsigned number;

static void fail(const char *what, const char *data, int length)
{
    fprintf(stderr, "loadclient: %s: ", what);
    for (int i = 0; i < length && i < 300; i++)
        fputc(data[i] >= ' ' && data[i] < 127 ? data[i] : '.', stderr);
    fputc('\n', stderr);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void *take(size_t length)
{
    char *data = malloc(length ? length : 1);
    if (data == NULL || fread(data, 1, length, stdin) != length)
        fail("the script is cut short", "", 0);
    return data;
}

static void read_script(void)
{
    uint32_t *head = take(sizeof *head);
    count = *head;
    pieces = calloc(count, sizeof *pieces);
    for (uint32_t i = 0; i < count; i++) {
        head = take(2 * sizeof *head);
        pieces[i].length = head[0];
        pieces[i].places = head[1];
        pieces[i].place = take(head[1] * sizeof *head);
        pieces[i].data = take(head[0]);
    }
}

/* Every piece of a session's message carries the same number, so it is written anew each time. */
static void send_piece(struct session *session)
{
    const struct piece *piece = &pieces[session->at];
    char text[DIGITS + 1];
    snprintf(text, sizeof text, "%08X", session->number);
    for (uint32_t i = 0; i < piece->places; i++)
        memcpy(piece->data + piece->place[i], text, DIGITS);
    for (uint32_t sent = 0; sent < piece->length;) {
        ssize_t done = send(session->fd, piece->data + sent, piece->length - sent, MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR)
            fail("send", strerror(errno), 80);
        sent += done > 0 ? (uint32_t)done : 0;
    }
}

static void begin(struct session *session, double time)
{
    session->at = 0;
    session->number = number++;
    session->began = time;
    send_piece(session);
}

/* Is the answer complete?  Removes the whole packets that it looked at. */
static int milter_answered(struct session *session)
{
    int at = 0, complete = 0;
    while (session->filled - at >= 5) {
        const unsigned char *head = (const unsigned char *)session->buffer + at;
        uint32_t length = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
        if (length > BUFFER - 4)
            fail("an answer too long", session->buffer, session->filled);
        if (session->filled - at < (int)length + 4)
            break;
        if (strchr("drty", head[4]) != NULL)
            fail("refused", (const char *)head + 4, (int)length);
        complete |= head[4] == 'c' || head[4] == 'a';
        at += (int)length + 4;
    }
    session->filled -= at;
    memmove(session->buffer, session->buffer + at, (size_t)session->filled);
    return complete;
}

static int smtp_answered(struct session *session)
{
    const char *end = session->buffer + session->filled, *line = end - 2;
    if (session->filled < 6 || end[-1] != '\n')
        return 0;
    while (line > session->buffer && line[-1] != '\n')
        line--;
    if (end - line < 6 || line[3] != ' ')
        return 0;
    if (*line != '2' && *line != '3')
        fail("refused", line, (int)(end - line));
    session->filled = 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        fail("usage", "loadclient milter|smtp SECONDS MESSAGES FIRST FD...", 80);
    int (*answered)(struct session *) = strcmp(argv[1], "smtp") ? milter_answered : smtp_answered;
    double limit = atof(argv[2]);
    size_t most = (size_t)atol(argv[3]), started = 0, finished = 0, counted = 0, room = 1 << 16;
    int sessions = argc - 5, poller = epoll_create1(0), busy = 0;
    struct session *session = calloc((size_t)sessions, sizeof *session);
    struct epoll_event *events = calloc((size_t)sessions, sizeof *events);
    double *share = calloc((size_t)sessions, sizeof *share);
    double *latency = malloc(room * sizeof *latency), began, ended, spent;

    number = (unsigned)strtoul(argv[4], NULL, 10);
    read_script();
    spent = cpu();
    began = ended = now();
    for (int i = 0; i < sessions; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        session[i].fd = atoi(argv[5 + i]);
        epoll_ctl(poller, EPOLL_CTL_ADD, session[i].fd, &event);
        if (most && started >= most)
            continue;
        started++;
        busy++;
        begin(&session[i], now());
    }
    while (busy > 0) {
        int ready = epoll_wait(poller, events, sessions, SILENCE_MS);
        if (ready == 0 || (ready < 0 && errno != EINTR))
            fail("no answer", ready ? strerror(errno) : "for 30 s", 80);
        for (int i = 0; i < ready; i++) {
            struct session *one = &session[events[i].data.u32];
            ssize_t got = recv(one->fd, one->buffer + one->filled, (size_t)(BUFFER - one->filled), 0);
            if (got <= 0)
                fail("the connection was closed", one->buffer, one->filled);
            one->filled += (int)got;
            if (!answered(one))
                continue;
            if (++one->at < count) {
                send_piece(one);
                continue;
            }
            double time = now();
            int late = limit > 0 && time - began > limit;
            if (!late) {
                ended = time;
                counted++;
                one->done++;
            }
            if (finished == room)
                latency = realloc(latency, (room *= 2) * sizeof *latency);
            latency[finished++] = time - one->began;
            if (late || (most && started >= most)) {
                busy--;
                continue;
            }
            started++;
            begin(one, time);
        }
    }
    for (int i = 0; i < sessions; i++)
        share[i] = session[i].done;
    double head[3] = {ended - began, cpu() - spent, (double)counted};
    fwrite(head, sizeof *head, 3, stdout);
    fwrite(share, sizeof *share, (size_t)sessions, stdout);
    fwrite(latency, sizeof *latency, finished, stdout);
    return 0;
}
