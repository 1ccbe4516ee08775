/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The command port: a terminal in raw mode that is never waited for. What
 * cannot be sent at once stays in a queue.
 */
#ifndef LABCTL_PORT_H
#define LABCTL_PORT_H

#include "frame.h"

struct port {
	int file;
	size_t head;
	size_t tail;
	uint8_t queue[8 * FRAME_WIRE_BYTES];
};

int port_open(struct port *port, const char *path);
/* Is there room for a frame of the largest payload, and a few small ones? */
bool port_has_room(const struct port *port);
bool port_is_idle(const struct port *port);
/* A small frame that finds no room is dropped: nobody has read for long. */
void port_send(struct port *port, enum frame_type type, const uint8_t *id,
	       const void *payload, size_t length);
/* Forget what was not sent; the next frame's END closes a half-sent one. */
void port_drop(struct port *port);
int port_flush(struct port *port);

#endif
