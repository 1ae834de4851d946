/* SPDX-License-Identifier: BSD-2-Clause */
/* TCP sockets, as the broker handles those of the relay. */
#ifndef BROKER_SOCKET_H
#define BROKER_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

#include <culvert/kern_user.h>

/* This network namespace, as sockets name it; 0: the kernel cannot say. */
uint64_t socket_namespace(void);

/* As broker_ops says of each. */
bool socket_is_ours(int fd, uint64_t netns);
/* Is it a UDP socket of that network namespace? */
bool socket_is_datagrams(int fd, uint64_t netns);

int sockets_closed(const int fds[WIRE_LEGS]);
void socket_acknowledge(int fd);
void socket_silence(int fd);
void socket_disconnect(int fd);
int socket_reset(const struct wire_key *key, uint32_t seq, uint32_t ack);

#endif
