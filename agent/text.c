/* Lines of text without stdio: printf alone would be a third of the program, and the supervisor must
   not allocate. Nothing here decides anything. */
#include "sys.h"
#include "text.h"

void add_bytes(Line *line, const char *bytes, size_t size) {
    size_t room = LINE_SIZE - 1 - line->size;
    if (size > room) size = room;
    memcpy(line->text + line->size, bytes, size);
    line->size += size;
}

void add(Line *line, const char *text) { add_bytes(line, text, strlen(text)); }

static void add_in_base(Line *line, uint64_t number, unsigned base) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % base);
        number /= base;
    } while (number);
    add_bytes(line, digits + at, sizeof digits - at);
}

void add_number(Line *line, uint64_t number) { add_in_base(line, number, 10); }

void add_octal(Line *line, unsigned number) { add_in_base(line, number, 8); }

void add_shown(Line *line, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        char shown = byte < 0x20 || byte == 0x7f ? ' ' : bytes[i];
        add_bytes(line, &shown, 1);
    }
}

void add_escaped(Line *line, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte > 0x20 && byte != 0x7f && byte != '\\') {
            add_bytes(line, bytes + i, 1);
            continue;
        }
        char octal[4] = {'\\', (char)('0' + (byte >> 6)), (char)('0' + (byte >> 3 & 7)),
                         (char)('0' + (byte & 7))};
        add_bytes(line, octal, sizeof octal);
    }
}

bool number_of(const char *text, size_t size, uint64_t most, uint64_t *number) {
    uint64_t sum = 0;
    if (size == 0) return false;
    for (size_t i = 0; i < size; i++) {
        unsigned digit = (unsigned)((unsigned char)text[i] - '0');
        if (digit > 9 || sum > (most - digit) / 10) return false;
        sum = sum * 10 + digit;
    }
    *number = sum;
    return true;
}

bool write_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}
