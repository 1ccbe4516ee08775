/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The command port: a terminal in raw mode with non-blocking output. Frames
 * that cannot be sent at once are queued.
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
/* Return whether a frame of the largest payload and some small ones fit. */
bool port_has_room(const struct port *port);
bool port_is_idle(const struct port *port);
/* Queue a frame; it is dropped if the queue is full: the host does not read. */
void port_send(struct port *port, enum frame_type type, const uint8_t *id,
	       const void *payload, size_t length);
/* Empty the queue; the next frame's END ends a partly sent one. */
void port_drop(struct port *port);
int port_flush(struct port *port);

#endif
