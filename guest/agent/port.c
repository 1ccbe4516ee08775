// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define SMALL_FRAMES_BYTES 1024

int port_open(struct port *port, const char *path)
{
	struct termios mode;

	port->head = 0;
	port->tail = 0;
	port->file = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (port->file < 0 || tcgetattr(port->file, &mode))
		return -1;
	cfmakeraw(&mode);
	mode.c_cflag |= CLOCAL | CREAD;
	mode.c_cflag &= ~(HUPCL | CRTSCTS);
	mode.c_cc[VMIN] = 1;
	mode.c_cc[VTIME] = 0;
	/* The slowest speeds also delay the receive interrupt. */
	cfsetspeed(&mode, B115200);
	return tcsetattr(port->file, TCSANOW, &mode);
}

static size_t room(const struct port *port)
{
	return sizeof(port->queue) - (port->tail - port->head);
}

bool port_has_room(const struct port *port)
{
	return room(port) >= FRAME_WIRE_BYTES + SMALL_FRAMES_BYTES;
}

bool port_is_idle(const struct port *port)
{
	return port->head == port->tail;
}

void port_send(struct port *port, enum frame_type type, const uint8_t *id,
	       const void *payload, size_t length)
{
	if (room(port) < 2 * (FRAME_HEADER_BYTES + length + 4) + 2)
		return;
	if (sizeof(port->queue) - port->tail < FRAME_WIRE_BYTES) {
		memmove(port->queue, port->queue + port->head,
			port->tail - port->head);
		port->tail -= port->head;
		port->head = 0;
	}
	port->tail += frame_encode(port->queue + port->tail, type, id, payload,
				   length);
}

void port_drop(struct port *port)
{
	port->head = 0;
	port->tail = 0;
}

int port_flush(struct port *port)
{
	while (port->head < port->tail) {
		ssize_t sent = write(port->file, port->queue + port->head,
				     port->tail - port->head);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
		port->head += sent;
	}
	port_drop(port);
	return 0;
}
