// SPDX-License-Identifier: GPL-2.0-only
#include "frame.h"

#include <string.h>

#define END            0xC0
#define ESCAPE         0xDB
#define ESCAPED_END    0xDC
#define ESCAPED_ESCAPE 0xDD

/* CRC-32 of IEEE 802.3, reflected, as zlib's. */
static uint32_t crc32_of(const uint8_t *data, size_t length)
{
	static uint32_t table[256];
	uint32_t crc = 0xFFFFFFFF;

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t value = i;

			for (int bit = 0; bit < 8; bit++)
				value = value & 1 ? value >> 1 ^ 0xEDB88320
						  : value >> 1;
			table[i] = value;
		}
	while (length--)
		crc = crc >> 8 ^ table[(crc ^ *data++) & 0xFF];
	return ~crc;
}

void frame_put_u32(uint8_t *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = value >> 8 * i;
}

void frame_put_u64(uint8_t *to, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		to[i] = value >> 8 * i;
}

uint32_t frame_get_u32(const uint8_t *from)
{
	return from[0] | from[1] << 8 | from[2] << 16 | (uint32_t)from[3] << 24;
}

static enum frame_result finish(struct frame_reader *reader,
				struct frame *frame)
{
	const uint8_t *raw = reader->raw;
	size_t used = reader->used;
	bool damaged = reader->damaged || reader->escaped;

	reader->used = 0;
	reader->escaped = false;
	reader->damaged = false;
	if (used == 0 && !damaged)
		return FRAME_NOTHING;
	if (damaged || used < FRAME_HEADER_BYTES + 4)
		return FRAME_BAD;
	frame->type = raw[0];
	memcpy(frame->id, raw + 1, FRAME_ID_BYTES);
	frame->length = frame_get_u32(raw + 1 + FRAME_ID_BYTES);
	frame->payload = raw + FRAME_HEADER_BYTES;
	if (frame->length != used - FRAME_HEADER_BYTES - 4 ||
	    crc32_of(raw, used - 4) != frame_get_u32(raw + used - 4))
		return FRAME_BAD;
	return FRAME_GOOD;
}

enum frame_result frame_take(struct frame_reader *reader, uint8_t byte,
			     struct frame *frame)
{
	if (byte == END)
		return finish(reader, frame);
	if (reader->escaped) {
		reader->escaped = false;
		if (byte == ESCAPED_END)
			byte = END;
		else if (byte == ESCAPED_ESCAPE)
			byte = ESCAPE;
		else
			reader->damaged = true;
	} else if (byte == ESCAPE) {
		reader->escaped = true;
		return FRAME_NOTHING;
	}
	if (reader->used == sizeof(reader->raw))
		reader->damaged = true;
	else
		reader->raw[reader->used++] = byte;
	return FRAME_NOTHING;
}

static uint8_t *put_escaped(uint8_t *to, const uint8_t *from, size_t length)
{
	while (length--) {
		uint8_t byte = *from++;

		if (byte == END || byte == ESCAPE) {
			*to++ = ESCAPE;
			byte = byte == END ? ESCAPED_END : ESCAPED_ESCAPE;
		}
		*to++ = byte;
	}
	return to;
}

size_t frame_encode(uint8_t *wire, enum frame_type type, const uint8_t *id,
		    const void *payload, size_t length)
{
	static uint8_t raw[FRAME_RAW_BYTES];
	size_t used = FRAME_HEADER_BYTES + length;
	uint8_t *end = wire;

	raw[0] = type;
	memcpy(raw + 1, id, FRAME_ID_BYTES);
	frame_put_u32(raw + 1 + FRAME_ID_BYTES, length);
	if (length)
		memcpy(raw + FRAME_HEADER_BYTES, payload, length);
	frame_put_u32(raw + used, crc32_of(raw, used));

	*end++ = END;
	end = put_escaped(end, raw, used + 4);
	*end++ = END;
	return end - wire;
}
