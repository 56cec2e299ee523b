// An HTTP/1.1 server that upgrades: WebSocket (RFC 6455) at /ws, server-sent events at /events. A WASI 0.1 command on the
// first listener that it inherits, one connection after the other, as plain C does it.
//
// GET /ws      sends every message back, whole; answers pings and the close
// GET /events  sends the event `one`, then waits for another connection with GET /go, then sends `two` and ends
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENER 3
#define MOST (512 * 1024)

static char head[8192];
static unsigned char message[MOST];

static int put(int fd, const void *data, size_t length) {
    const char *at = data;
    while (length > 0) {
        ssize_t written = write(fd, at, length);
        if (written <= 0) return -1;
        at += written;
        length -= (size_t)written;
    }
    return 0;
}

static int take(int fd, void *data, size_t length) {
    char *at = data;
    while (length > 0) {
        ssize_t got = read(fd, at, length);
        if (got <= 0) return -1;
        at += got;
        length -= (size_t)got;
    }
    return 0;
}

// Byte by byte, so that nothing of what follows is taken.
static int take_head(int fd) {
    size_t length = 0;
    while (length + 1 < sizeof head) {
        if (take(fd, head + length, 1)) return -1;
        head[++length] = 0;
        if (length >= 4 && !memcmp(head + length - 4, "\r\n\r\n", 4)) return 0;
    }
    return -1;
}

static int asks_for(const char *path) {
    size_t length = strlen(path);
    return !strncmp(head, "GET ", 4) && !strncmp(head + 4, path, length) && head[4 + length] == ' ';
}

// The value of a field, up to the end of its line.
static size_t field(const char *name, const char **value) {
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        size_t length = strlen(name);
        if (strncasecmp(line, name, length) || line[length] != ':') continue;
        *value = line + length + 1;
        while (**value == ' ') ++*value;
        return strcspn(*value, "\r");
    }
    return 0;
}

static uint32_t turn(uint32_t word, int by) { return word << by | word >> (32 - by); }

// SHA-1 of less than 120 bytes.
static void sha1(const unsigned char *data, size_t length, unsigned char out[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char blocks[128] = {0};
    memcpy(blocks, data, length);
    blocks[length] = 0x80;
    size_t all = length < 56 ? 64 : 128;
    blocks[all - 2] = (unsigned char)(length * 8 >> 8);
    blocks[all - 1] = (unsigned char)(length * 8);
    for (size_t at = 0; at < all; at += 64) {
        uint32_t w[80];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)blocks[at + i * 4] << 24 | (uint32_t)blocks[at + i * 4 + 1] << 16 |
                   (uint32_t)blocks[at + i * 4 + 2] << 8 | blocks[at + i * 4 + 3];
        for (int i = 16; i < 80; i++) w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t next = turn(a, 5) + f + e + k + w[i];
            e = d, d = c, c = turn(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const unsigned char *data, size_t length, char *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint32_t)data[i] << 16 | (i + 1 < length ? data[i + 1] << 8 : 0) | (i + 2 < length ? data[i + 2] : 0);
        *out++ = letters[three >> 18];
        *out++ = letters[three >> 12 & 63];
        *out++ = i + 1 < length ? letters[three >> 6 & 63] : '=';
        *out++ = i + 2 < length ? letters[three & 63] : '=';
    }
    *out = 0;
}

static int send_frame(int fd, unsigned char first, const unsigned char *data, uint64_t length) {
    unsigned char start[10] = {first};
    size_t size = 2;
    if (length < 126) {
        start[1] = (unsigned char)length;
    } else if (length < 65536) {
        start[1] = 126, start[2] = (unsigned char)(length >> 8), start[3] = (unsigned char)length, size = 4;
    } else {
        start[1] = 127, size = 10;
        for (int i = 0; i < 8; i++) start[2 + i] = (unsigned char)(length >> (56 - i * 8));
    }
    return put(fd, start, size) || put(fd, data, length) ? -1 : 0;
}

static void web_socket(int fd) {
    const char *key;
    char text[128], accept[32], answer[256];
    unsigned char digest[20];
    size_t length = field("sec-websocket-key", &key);
    if (length == 0 || length > 40) {
        static const char none[] = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        put(fd, none, sizeof none - 1);
        return;
    }
    int all = snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)length, key);
    sha1((unsigned char *)text, (size_t)all, digest);
    base64(digest, sizeof digest, accept);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                        "sec-websocket-accept: %s\r\n\r\n", accept);
    if (put(fd, answer, (size_t)size)) return;
    unsigned messages = 0;
    for (;;) {
        unsigned char start[2], more[8], mask[4];
        if (take(fd, start, 2)) break;
        uint64_t length = start[1] & 127;
        int wide = length == 126 ? 2 : length == 127 ? 8 : 0;
        if (wide) {
            if (take(fd, more, (size_t)wide)) break;
            length = 0;
            for (int i = 0; i < wide; i++) length = length << 8 | more[i];
        }
        // Clients mask, and send no more than we keep.
        if (!(start[1] & 128) || length > MOST || take(fd, mask, 4) || take(fd, message, length)) break;
        for (uint64_t i = 0; i < length; i++) message[i] ^= mask[i % 4];
        int opcode = start[0] & 15;
        if (send_frame(fd, opcode == 9 ? 0x8A : start[0], message, length) || opcode == 8) break;
        messages += opcode < 8;
    }
    printf("web socket closed after %u messages\n", messages);
}

static void events(int fd) {
    static const char one[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                              "transfer-encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n";
    static const char two[] = "b\r\ndata: two\n\n\r\n0\r\n\r\n";
    static const char gone[] = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";
    if (put(fd, one, sizeof one - 1)) return;
    int other = accept(LISTENER, 0, 0);
    if (other < 0) return;
    if (!take_head(other) && asks_for("/go")) put(other, gone, sizeof gone - 1);
    close(other);
    put(fd, two, sizeof two - 1);
    puts("events sent");
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("serving");
    for (;;) {
        int fd = accept(LISTENER, 0, 0);
        if (fd < 0) return 1;
        if (!take_head(fd)) {
            static const char none[] = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            if (asks_for("/ws")) web_socket(fd);
            else if (asks_for("/events")) events(fd);
            else put(fd, none, sizeof none - 1);
        }
        close(fd);
    }
}
