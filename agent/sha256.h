/* SHA-256 (FIPS 180-4) of a stream. */
#ifndef DEVLOOP_SHA256_H
#define DEVLOOP_SHA256_H

#include "sys.h"

enum { SHA256_HEX = 64, SHA256_BLOCK = 64 };

typedef struct {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[SHA256_BLOCK];
} Sha256;

void sha256_start(Sha256 *sum);
void sha256_add(Sha256 *sum, const void *bytes, size_t size);
/* In lower case, without an end. */
void sha256_end(Sha256 *sum, char hex[SHA256_HEX]);

#endif
