/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The frames of the command port.
 *
 *   END  type(1)  request id(8)  length(4, little endian)  payload  crc32(4)
 * END
 *
 * Between two END bytes, END and ESCAPE are sent as ESCAPE and a second byte,
 * so that END always ends a frame: after garbage on the line, at most one frame
 * is lost. The checksum covers type to payload. Types from the host are
 * upper-case letters, types from the guest lower-case ones, so that an echo is
 * never mistaken for a reply.
 */
#ifndef LABCTL_FRAME_H
#define LABCTL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_ID_BYTES      8
#define FRAME_PAYLOAD_BYTES 16384
#define FRAME_HEADER_BYTES  (1 + FRAME_ID_BYTES + 4)
#define FRAME_RAW_BYTES     (FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES + 4)
/* With every byte escaped, and an END on both sides. */
#define FRAME_WIRE_BYTES (2 * FRAME_RAW_BYTES + 2)

enum frame_type {
	/* host to guest */
	FRAME_HELLO = 'H', /* a new client; kills the running command */
	FRAME_RUN = 'R',   /* u32: number of bytes of argv in the stream */
	FRAME_STREAM =
		'I', /* the stream: argv, each word ended by NUL; stdin */
	FRAME_END_OF_STREAM = 'E',
	FRAME_KILL = 'K',
	/* guest to host */
	FRAME_WELCOME = 'h',
	FRAME_STARTED = 's',
	FRAME_STDOUT = 'o',
	FRAME_STDERR = 'e',
	FRAME_TAKEN = 'a',  /* u64: bytes of the stream taken so far */
	FRAME_BEAT = 'b',   /* the guest is alive and the command is running */
	FRAME_EXIT = 'x',   /* i32 status; u64 stdout, stderr, nanoseconds */
	FRAME_DAMAGED = 'n' /* a damaged frame arrived */
};

struct frame {
	uint8_t type;
	uint8_t id[FRAME_ID_BYTES];
	uint32_t length;
	const uint8_t *payload;
};

struct frame_reader {
	uint8_t raw[FRAME_RAW_BYTES];
	size_t used;
	bool escaped;
	bool damaged;
};

enum frame_result {
	FRAME_NOTHING,
	FRAME_GOOD,
	FRAME_BAD
};

/* Take one byte from the line; `frame` is valid until the next call. */
enum frame_result frame_take(struct frame_reader *reader, uint8_t byte,
			     struct frame *frame);

/* Write a frame to `wire` (FRAME_WIRE_BYTES) and return its length there. */
size_t frame_encode(uint8_t *wire, enum frame_type type, const uint8_t *id,
		    const void *payload, size_t length);

void frame_put_u32(uint8_t *to, uint32_t value);
void frame_put_u64(uint8_t *to, uint64_t value);
uint32_t frame_get_u32(const uint8_t *from);

#endif
